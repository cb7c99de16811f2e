"""The files of the dashboard as a browser gets them; tests/flow/test_dashboard.py is about how they behave there."""

import re

import pytest
from aiohttp.test_utils import make_mocked_request

from proxy.api.dashboard import POLICY, Dashboard
from proxy.errors import InvalidRequest
from proxy.ui import ROOT

DASHBOARD = Dashboard()
SCRIPTS = sorted(path for path in DASHBOARD.files if path.endswith(".js"))
REFERENCES = re.compile(r"(?:href|src)=\"([^\"#]+)\"|(?:from|import) \"\./([^\"]+)\"")


def answer(path: str, method: str = "GET", **headers: str):
    return DASHBOARD.answer(make_mocked_request(method, path, headers=headers))


def text(path: str) -> str:
    return DASHBOARD.files[path].body.decode()


def test_every_file_that_is_named_exists_and_every_file_is_named() -> None:
    named = {
        next(filter(None, names))
        for path in DASHBOARD.files
        for names in REFERENCES.findall(DASHBOARD.files[path].body.decode())
    }
    there = {path.removeprefix("/ui/") for path in DASHBOARD.files} - {"", "index.html"}
    assert named == there


@pytest.mark.parametrize("path", sorted(DASHBOARD.files))
def test_file_comes_with_headers_that_leave_nothing_open(path: str) -> None:
    found = answer(path)
    assert (found.status, found.body) == (200, DASHBOARD.files[path].body)
    assert found.headers["Content-Type"].partition(";")[0] in (
        "text/html",
        "text/css",
        "text/javascript",
        "image/svg+xml",
    )
    assert found.headers["Content-Security-Policy"] == POLICY
    assert found.headers["X-Content-Type-Options"] == "nosniff"
    assert found.headers["X-Frame-Options"] == "DENY"
    assert found.headers["Referrer-Policy"] == "no-referrer"
    assert found.headers["Cache-Control"] == "no-cache"


def test_policy_allows_nothing_inline_and_no_other_host() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert (rules["require-trusted-types-for"], rules["trusted-types"]) == ("'script'", "'none'")


def test_page_holds_no_code_and_no_style() -> None:
    page = text("/ui/")
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="app.js">']
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)


@pytest.mark.parametrize("path", SCRIPTS)
def test_script_makes_no_markup_of_texts_and_keeps_the_key_in_one_place(path: str) -> None:
    code = text(path)
    assert not re.search(r"(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser", code)
    assert not re.search(r"localStorage|document\.cookie|indexedDB", code)
    assert path == "/ui/session.js" or "sessionStorage" not in code
    assert not re.search(r"https?://", code.replace("http://www.w3.org/2000/svg", ""))


def test_whole_dashboard_is_small() -> None:
    assert sum(len(file.body) for file in DASHBOARD.files.values()) < 120_000


@pytest.mark.parametrize(
    "path",
    [
        "/ui/nothing.js",
        "/ui/__init__.py",
        "/ui/../ui/app.js",
        "/ui/../../config/sidegate.yaml",
        "/ui/%2e%2e/api/access.py",
        "/ui/..%2fapi%2faccess.py",
        "/ui//app.js",
        "/ui/app.js/",
        "/ui/APP.JS",
        "/uix",
        "/ui/app.js%00",
    ],
)
def test_path_that_is_no_file_of_ours_is_not_found(path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        answer(path)
    assert (caught.value.http_status, caught.value.code) == (404, "unknown_path")


def test_page_without_its_slash_is_sent_on_relatively() -> None:
    found = answer("/ui")
    assert (found.status, found.headers["Location"]) == (308, "ui/")


def test_file_that_is_known_is_not_sent_again() -> None:
    etag = answer("/ui/app.js").headers["ETag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        found = answer("/ui/app.js", **{"If-None-Match": known})
        assert (found.status, found.body, found.headers["ETag"]) == (304, None, etag)
    assert answer("/ui/app.js", **{"If-None-Match": '"other"'}).status == 200
    assert answer("/ui/page.css").headers["ETag"] != etag


def test_other_methods_are_refused() -> None:
    found = answer("/ui/app.js", method="POST")
    assert (found.status, found.headers["Allow"]) == (405, "GET, HEAD")


def test_file_that_is_too_long_is_refused_at_the_start(tmp_path) -> None:
    (tmp_path / "index.html").write_text((ROOT / "index.html").read_text())
    (tmp_path / "huge.js").write_bytes(b"x" * 300_000)
    with pytest.raises(ValueError, match=r"huge\.js"):
        Dashboard(tmp_path)
