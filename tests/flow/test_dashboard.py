"""The dashboard in a real browser: what it shows, what it keeps, and that names of clients stay text."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from proxy.auth.keys import KeyStore, NewKey
from proxy.config import schema
from proxy.db.pool import Database
from tests.fakes.browser import CHROMIUM, Browser, Page, launched
from tests.flow.dashboard import HOSTILE, KEY, seeded, serving

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.asyncio(loop_scope="module"),
]
LOADED = "document.querySelector('.panels') && !document.querySelector('[aria-busy=true]')"
UNNAMED = """[...document.querySelectorAll('input, select, button, a, svg')].filter((node) => node.tagName === 'svg'
    ? !node.closest('[aria-hidden=true]') && !node.hasAttribute('aria-label')
    : !(node.labels?.length || node.textContent.trim())).map((node) => node.outerHTML)"""


@pytest.fixture(scope="module")
def company_url(postgres, migrated_template: str):
    url = postgres.create_database(migrated_template)
    asyncio.run(seeded(url))
    yield url
    postgres.drop_database(url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(company_url: str) -> AsyncIterator[str]:
    async with serving(company_url) as address:
        yield address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operators(browser: Browser, address: str) -> Page:
    """The tab of one who may see everything; each test goes to the view that it is about."""
    return await signed_in(browser, address)


async def overview(page: Page) -> None:
    await page.run("location.hash = '#/'")
    await page.until(f"document.querySelector('h1').textContent === 'Overview' && {LOADED}")


async def signed_in(browser: Browser, address: str, key: str = KEY) -> Page:
    page = await browser.page()
    await page.open(f"{address}/ui/")
    await page.until("document.getElementById('key')")
    await page.type(key)
    await page.press("Enter")
    await page.until(LOADED)
    return page


async def titles(page: Page) -> list[str]:
    return await page.run("[...document.querySelectorAll('h2')].map((node) => node.textContent)")


async def test_key_is_tried_and_kept_in_the_tab_alone(browser: Browser, address: str) -> None:
    page = await browser.page()
    await page.open(f"{address}/ui/#/requests")
    await page.until("document.activeElement.id === 'key'")
    await page.type("wrong-key")
    await page.press("Enter")
    await page.until("document.getElementById('complaint').textContent")
    assert await page.run("sessionStorage.length") == 0
    await page.type(KEY)
    await page.press("Enter")
    await page.until(LOADED)
    assert await page.run("[location.href, localStorage.length, document.cookie]") == [
        f"{address}/ui/#/requests",
        0,
        "",
    ]
    assert await page.run("Object.values(sessionStorage)") == [KEY]
    assert await page.run(
        "performance.getEntriesByType('resource').every((one) => one.name.startsWith(location.origin))"
    )
    await page.run("[...document.querySelectorAll('button')].find((one) => one.textContent === 'Sign out').click()")
    await page.until("document.getElementById('key')")
    assert await page.run("sessionStorage.length") == 0
    assert [text for text in page.complaints if "401" not in text] == []


async def test_names_of_clients_stay_text_everywhere(operators: Page) -> None:
    page = operators
    await overview(page)
    assert HOSTILE in await page.run("document.querySelector('main').textContent")
    await page.run("location.hash = '#/requests'")
    await page.until(f"document.querySelector('.filters') && {LOADED} && document.querySelector('main a')")
    assert HOSTILE in await page.run("document.querySelector('main').textContent")
    await page.run("location.hash = document.querySelector('main a').getAttribute('href')")
    await page.until("document.querySelector('.waterfall')")
    shown = await page.run("document.querySelector('main').textContent")
    assert shown.count(HOSTILE) >= 4 and "breaker is open" in shown and "Call 3" in shown
    assert await page.run("document.querySelectorAll('main img, main script').length") == 0
    assert await page.run("document.title") == "Trace – Sidegate"
    assert page.complaints == []


async def test_figures_are_those_of_the_api(operators: Page) -> None:
    page = operators
    await overview(page)
    asked = f"fetch('../v1/analytics', {{headers: {{Authorization: 'Bearer {KEY}'}}}}).then((answer) => answer.json())"
    usage = await page.run(asked)
    totals = await page.run("[...document.querySelectorAll('.totals dd:not(.note)')].map((node) => node.textContent)")
    assert totals[0] == f"{usage['totalRequests']:,}"
    assert totals[1] == f"${usage['totalCost']:.2f}"
    rows = await page.run("document.querySelectorAll('.chart table')[0].rows.length")
    assert rows == 31  # a heading, and every one of 30 days


async def test_keyboard_and_screen_readers_reach_everything(operators: Page) -> None:
    page = operators
    await overview(page)
    assert (
        await page.run("['header', 'nav', 'main', 'h1'].map((name) => document.querySelectorAll(name).length)")
        == [1] * 4
    )
    assert await page.run(UNNAMED) == []
    await page.run("document.querySelector('.plot').focus()")
    await page.press("ArrowRight")
    first = await page.run("document.querySelector('.readout').textContent")
    await page.press("ArrowRight")
    assert first and await page.run("document.querySelector('.readout').textContent") not in ("", first)
    await page.run("location.hash = '#/requests'")
    await page.until("document.activeElement === document.querySelector('main')")
    assert await page.run("document.querySelector('[aria-current=page]').textContent") == "Requests"


async def test_phone_needs_no_sideways_scrolling(operators: Page) -> None:
    await overview(operators)
    await operators.resize(390, 800)
    await operators.until("innerWidth === 390")
    assert await operators.run("document.documentElement.scrollWidth") == 390
    await operators.resize(1280, 900)


async def test_role_decides_which_panels_there_are(
    browser: Browser, address: str, company_url: str, operators: Page
) -> None:
    database = Database(schema.Database())
    await database.connect(company_url)
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO user_roles VALUES ('eve', 'shop', 'viewer')")
    made = await KeyStore(database).create(NewKey("test", "eve", "shop", {}, None), "test")
    await database.close()
    assert made is not None
    page = await signed_in(browser, address, key=made[1])
    assert {"Totals", "Daily quotas", "Users"} <= set(await titles(page))
    assert not {"Projects", "Providers"} & set(await titles(page))
    assert await page.run("document.querySelector('#scope').textContent.startsWith('Projectshop')")
    assert page.complaints == []
    await overview(operators)
    assert {"Projects", "Providers"} <= set(await titles(operators))
