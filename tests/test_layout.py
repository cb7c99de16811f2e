"""The layout check itself: every rule finds what it is for, and lets the allowed through."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
HASHED = "{name}=={version} \\\n    --hash=sha256:00\n    # via sidegate (pyproject.toml)\n"
PROJECT = '[project]\nname = "sidegate"\ndependencies = ["one>=1,<2"]\n[project.optional-dependencies]\ndev = ["two"]\n'


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


layout = load_script("check_layout")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "complaints"),
    [
        ({"proxy/a.py": "", "tests/test_a.py": ""}, 0),
        ({"proxy/p/a.py": "", "tests/p/test_a.py": "", "tests/p/test_a_limits.py": "", "proxy/p/__init__.py": ""}, 0),
        ({"proxy/p/lean.py": "", "proxy/p/lean_pool.py": "", "tests/p/test_lean.py": ""}, 0),
        ({"proxy/p/a.py": ""}, 1),
        ({"proxy/p/a.py": "", "tests/p/test_b.py": ""}, 2),
        ({"proxy/p/a.py": "", "tests/test_a.py": ""}, 2),
        ({"tests/flow/test_everything.py": "", "proxy/app.py": ""}, 0),
        ({"proxy/app.py": ""}, 1),
    ],
)
def test_mirror_when_tree_given_then_complains(tmp_path: Path, files: dict[str, str], complaints: int) -> None:
    write(tmp_path, files)
    assert len(list(layout.check_mirror(tmp_path))) == complaints


@pytest.mark.parametrize(
    ("name", "lines", "complaints"),
    [("a.py", layout.MAX_LINES, 0), ("a.py", layout.MAX_LINES + 1, 1), ("p/utils.py", 1, 1), ("common.py", 999, 2)],
)
def test_budget_when_too_long_or_nameless_then_complains(
    tmp_path: Path, name: str, lines: int, complaints: int
) -> None:
    write(tmp_path, {f"proxy/{name}": "pass\n" * lines})
    assert len(list(layout.check_budget(tmp_path))) == complaints


@pytest.mark.parametrize(
    ("name", "text", "complaints"),
    [
        ("p/store.py", 'Q = "SELECT a FROM t"', 0),
        ("p/other.py", 'Q = "SELECT a FROM t"', 1),
        ("p/other.py", 'Q = "SELECT f()"', 1),
        ("p/other.py", 'Q = "SELECT 1"', 0),
        ("p/other.py", 'Q = """\n    INSERT INTO t\n"""', 1),
        ("p/other.py", 'Q = "UPDATE t SET a = 1"', 1),
        ("p/other.py", 'Q = "WITH x AS (SELECT 1)"', 1),
        ("p/other.py", '"""SELECT rows of the table."""\nQ = "Select a file"', 0),
        ("p/other.py", 'class C:\n    a: int = 1\n    """DELETE FROM is never used."""', 0),
        ("p/other.py", 'Q = f"DELETE FROM {1}"', 1),
    ],
)
def test_sql_when_outside_its_files_then_complains(tmp_path: Path, name: str, text: str, complaints: int) -> None:
    write(tmp_path, {f"proxy/{name}": text})
    assert len(list(layout.check_sql(tmp_path))) == complaints


@pytest.mark.parametrize(
    ("name", "text", "complaints"),
    [
        ("upstream/session.py", "import aiohttp.web", 0),
        ("relay/sse.py", "from aiohttp import web", 1),
        ("relay/sse.py", "import aiohttp, asyncpg", 2),
        ("trace/store.py", "import asyncpg", 0),
        ("trace/record.py", "import asyncpg", 1),
        ("config/load.py", "import os\nos.environ", 0),
        ("config/schema.py", "import os\nos.environ", 1),
        ("relay/sse.py", "import os\nos.getenv('A')", 1),
        ("relay/sse.py", "from os import environ", 1),
        ("relay/sse.py", "import os\nos.getpid()", 0),
    ],
)
def test_edges_when_library_or_environment_is_used_then_complains(
    tmp_path: Path, name: str, text: str, complaints: int
) -> None:
    write(tmp_path, {f"proxy/{name}": text})
    assert len(list(layout.check_edges(tmp_path))) == complaints


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("see /" + "home/someone/x", 1),
        ("see /" + "Users/someone", 1),
        ("cd /" + "root/x", 1),
        ("--extra-" + "index-url=x", 1),
        ("get it from files." + "pythonhosted.org", 1),
        ("data under /var/lib/sidegate and /tmp", 0),
        ("GET /v1/home/page and https://example.com/" + "root/x", 0),
    ],
)
def test_places_when_a_machine_is_named_then_complains(tmp_path: Path, text: str, complaints: int) -> None:
    write(tmp_path, {"docs/a.md": f"first\n{text}\n"})
    assert len(list(layout.check_places(tmp_path))) == complaints


def test_places_when_checkout_path_occurs_then_complains(tmp_path: Path) -> None:
    write(tmp_path, {"docs/a.md": f"cd {tmp_path}\n"})
    assert list(layout.check_places(tmp_path)) == ["docs/a.md:1: the path of this checkout does not belong here"]


def locks(one: str = "1.5", smaller: str = "", larger: str = "", two: str = "2") -> dict[str, str]:
    runtime = HASHED.format(name="one", version=one)
    development = HASHED.format(name="one", version="1.5") + (HASHED.format(name="two", version=two) if two else "")
    return {
        "pyproject.toml": PROJECT,
        "requirements.lock": runtime + smaller,
        "requirements-dev.lock": development + larger,
    }


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (locks(one="2.0"), "one<2,>=1"),
        (locks(one="1.4"), "one differs"),
        (locks(two=""), "two of pyproject.toml is not met"),
        (locks(larger="three==3\n"), "three==3"),
        (locks(larger="four>=3\n"), "four>=3"),
        (locks(smaller="five @ file:///somewhere\n"), "five @"),
        (locks(smaller="--index" + "-url https://example.com\n"), "--index" + "-url"),
    ],
)
def test_locks_when_not_in_step_then_complains(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    write(tmp_path, files)
    assert complaint in "\n".join(layout.check_locks(tmp_path))


def test_locks_when_in_step_then_silent(tmp_path: Path) -> None:
    write(tmp_path, locks())
    assert list(layout.check_locks(tmp_path)) == []


def test_locks_when_of_this_repository_then_in_step() -> None:
    assert list(layout.check_locks(ROOT)) == []
