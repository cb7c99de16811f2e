"""What the reference tables of the documentation say is what the code has: error codes, metrics, defaults."""

import re
import tomllib
from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest

from proxy.config.keys import KEYS
from proxy.config.schema import Config
from tests.docs.fences import PAGES, ROOT

SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "proxy").rglob("*.py")))
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
UNITS = {"": 1, "s": 1, "MiB": 1 << 20}
HEADING = re.compile(r"^\| key \| default \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)


def test_error_codes_when_raised_then_a_page_names_each() -> None:
    codes = set(re.findall(r'\bcode="([a-z_]+)"|default_code = "([a-z_]+)"', SOURCE))

    assert sorted(code for pair in codes for code in pair if code and f"`{code}`" not in TEXT) == []


def test_metrics_when_exposed_then_a_page_names_each() -> None:
    metrics = set(re.findall(r'"(sidegate_[a-z_]+)"', SOURCE))

    assert sorted(name for name in metrics if not re.search(rf"\b{name}(?:_total)?\b", TEXT)) == []


def test_modules_that_join_packages_when_listed_then_all_of_them_and_no_others() -> None:
    _, _, rest = (ROOT / "docs/architecture.md").read_text().partition("**Where to find what.**")
    listed = re.findall(r"`(\w+)(?:\.py)?`", rest.partition("\n\n**")[0])
    holders = [ROOT / "proxy", *(ROOT / "proxy" / name for name in ("phases", "process", "event_loop", "nouns"))]
    there = {path.stem for holder in holders for path in holder.glob("*.py")} - {"__init__", "__main__"}
    assert sorted(listed) == sorted(there)


def test_layers_when_drawn_then_they_are_those_that_imports_are_checked_against() -> None:
    _, _, rest = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("**Layers.**")
    drawn = rest.split("```")[1].split("\n")[1:-1]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    checked = [re.sub(r"proxy\.(\w+\.)?", "", line) for line in contracts[0]["layers"]]
    assert drawn == [line for line in checked if line != "__main__"]


def test_modules_when_a_page_names_their_file_then_they_exist() -> None:
    named = set(re.findall(r"`(?:proxy/)?((?:\w+/)?\w+\.py)`", TEXT))
    there = {str(path.relative_to(ROOT / "proxy")) for path in (ROOT / "proxy").rglob("*.py")}
    there |= {
        str(path.relative_to(ROOT)) for home in ("bench", "scripts", "tests") for path in (ROOT / home).rglob("*.py")
    }
    assert sorted(named - there) == []


def test_alerts_when_they_fire_then_a_page_says_what_to_do_first() -> None:
    rules = (ROOT / "deploy/k8s/components/observability/prometheusrule.yaml").read_text(encoding="utf-8")
    rows = [line for line in TEXT.splitlines() if line.startswith("| `Sidegate")]

    assert (
        sorted(name for name in re.findall(r"alert: (\w+)", rules) if not any(f"`{name}`" in row for row in rows)) == []
    )


def tables() -> Iterator[tuple[str, str]]:
    """Yield key and default as the tables with these two columns have them; keys without their section as well."""
    for rows in HEADING.findall(TEXT):
        for row in rows.splitlines():
            names, defaults = (cell.strip() for cell in row.split("|")[1:3])
            yield from zip(re.findall(r"`([a-z_.]+)`", names), defaults.split(", "), strict=True)


@pytest.mark.parametrize(("name", "written"), [*tables()])
def test_default_when_written_in_a_table_then_it_is_that_of_the_key(name: str, written: str) -> None:
    keys = [key for key in KEYS.values() if key.name == name or key.path[-1] == name]
    defaults: list[Any] = [reduce(getattr, key.path, Config()) for key in keys]
    number, _, unit = written.partition(" ")

    expected = int(number) * UNITS[unit] if number.isdigit() else written.strip("`")
    assert expected in defaults
