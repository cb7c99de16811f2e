"""Hold the rules that no linter knows; part of `make check`.

    mirror      every module has its test file, every test file its module
    budget      no module above 400 lines, no catch-all names
    sql         SQL only in modules that are named for it
    edges       the environment, HTTP and PostgreSQL libraries only where they belong
    places      no path of one machine, no package index in any file of the repository
    locks       pinned, hashed, in step with pyproject.toml

Rules of the file: a check takes the root of the tree and yields complaints, `path: what is wrong; what to do instead`.
Every exception stands in a table with its reason.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Check = Callable[[Path], Iterator[str]]

MAX_LINES = 400
CATCH_ALL = {"utils", "helpers", "common", "misc", "base"}

TESTED_ELSEWHERE = {
    "phases/assurance": "flow/test_assurance.py",
    "phases/further_answers": "flow/test_assurance.py",
    "phases/reviewing": "flow/test_assurance.py",
    "analytics/columns": "analytics/test_queries.py",
    "analytics/expensive": "analytics/test_queries.py",
    "analytics/findings": "analytics/test_rollup.py",
    "analytics/latency": "analytics/test_queries.py",
    "analytics/ranges": "analytics/test_queries.py",
    "analytics/shares": "analytics/test_queries.py",
    "analytics/usage": "analytics/test_queries.py",
    "api/routing": "flow/test_routing.py",
    "nouns/candidates": "routing/test_plan.py",
    "config/routing": "config/test_load.py",
    "routing/response_headers": "flow/test_routing.py",
    "trace/decision": "trace/test_record.py",
    "__main__": "cli",
    "api/assembly": "flow",
    "api/bodies": "api/test_quotas.py",
    "api/analytics_shapes": "api/test_openapi.py",
    "api/shapes": "api/test_openapi.py",
    "api/members": "api/test_projects.py",
    "api/names": "api/test_projects.py",
    "api/organizations": "api/test_projects.py",
    "api/project_config": "api/test_projects.py",
    "auth/store": "api/test_projects.py",
    "tenants/store": "api/test_projects.py",
    "api/caller": "api/test_routes_roles.py",
    "api/audit": "api/test_keys.py",
    "app": "flow",
    "cli/analytics_text": "cli/test_analytics.py",
    "config/auth": "auth/test_keyring.py",
    "config/projects": "projects/test_directory.py",
    "db/exec_postgres": "db/test_postmaster.py",
    "ingress/client_request": "ingress/test_handler.py",
    "journal/chain": "journal/test_segments.py",
    "journal/cursor": "journal/test_crash.py",
    "journal/intents": "journal/test_recovery.py",
    "journal/reader": "journal/test_segments.py",
    "journal/segment": "journal/test_segments.py",
    "nouns/peers": "test_exchange.py",
    "quota/caller": "quota/test_reservations.py",
    "quota/callers": "quota/test_reservations.py",
    "quota/lease_book": "quota/test_keeper.py",
    "quota/reservation": "quota/test_reservations.py",
    "quota/supply": "quota/test_reservations.py",
    "quota/tally": "quota/test_keeper.py",
    "relay/observed": "relay/test_scanned.py",
    "relay/readable": "relay/test_relay.py",
    "relay/reading": "relay/test_scanned.py",
    "relay/undecided": "relay/test_scanned.py",
    "nouns/scanners": "relay/test_scanned.py",
    "serve": "flow",
    "process/gauges": "flow/test_process.py",
    "process/reload": "flow/test_reload.py",
    "phases/settling": "test_pipeline.py",
    "upstream/failures": "upstream/test_client.py",
    "upstream/session": "upstream/test_client.py",
    "upstream/session_setup": "upstream/test_client.py",
    "upstream/stats": "upstream/test_lean_pool.py",
}
"""Modules that decide nothing alone, and what below tests/ exercises them: wiring, signals, nouns, and the inner parts
of the journal and of the two HTTP clients, which are tested through their one entrance."""

THEMATIC = {"clients", "deploy", "docs", "fakes", "flow", "postgres"}
"""Directories of tests that cross modules."""
TESTS_ACROSS_MODULES = {
    "journal/test_crash",
    "policy/test_corpus",
    "quota/test_fleet",
    "test_layout",
    "upstream/test_tls",
}
"""Test files of a behaviour that several modules make together."""

SQL_MODULES = {"audit", "keys", "ledger", "store", "rollup", "migrate", "partitions"}
SQL_PACKAGES = {"analytics"}
"""Each of their modules is one question to the database."""
# `SELECT 1` reads nothing: it asks whether a connection lives.
SQL = re.compile(
    r"\s*(SELECT\s(?!1$)|INSERT INTO\s|UPDATE\s+\S+\s+SET\s|DELETE FROM\s|CREATE (TEMP |OR |TABLE|INDEX|FUNCTION)|"
    r"ALTER (TABLE|ROLE|DATABASE)|DROP (TABLE|INDEX|FUNCTION)|TRUNCATE\s|WITH\s+\w+\s+AS\s*\()",
    re.DOTALL,
)

EDGES = {
    "aiohttp": ("ingress", "api", "app", "serve", "upstream", "demo", "cli"),
    "asyncpg": ("db", "journal/writer", "trace/store", "quota/ledger", "auth/keys", "analytics", "app", "cli"),
}
"""Which parts of the package may import an I/O library; import-linter forbids it to some, this allows it to few."""
ENVIRONMENT_READER = "config/load.py"

PLACES = re.compile(
    r"(?<![\w.])(/(?:root/|home/\w|Users/\w)|[A-Z]:\\Users\\)"
    r"|\b(pypi\.org|pythonhosted\.org|registry\.npmjs\.org)\b"
    r"|--(extra-)?index-url|--find-links|--trusted-host"
)
MAY_NAME_PLACES = {"scripts/check_layout.py", "tests/test_layout.py", "Makefile"}
"""These state the rule, or keep such places out of the lock."""


def package_modules(root: Path) -> Iterator[Path]:
    """Yield the package's modules, relative to it; what `resources` links to is data."""
    for path in sorted((root / "proxy").rglob("*.py")):
        relative = path.relative_to(root / "proxy")
        if relative.parts[0] != "resources":
            yield relative


def check_mirror(root: Path) -> Iterator[str]:
    """A module has a test file named for it; a test file is named for a module, perhaps with `_aspect` behind it.

    Modules that share a tested module's name and add to it (`lean`, `lean_pool`) are one feature, tested together.
    """
    modules = {module.with_suffix("") for module in package_modules(root) if module.name != "__init__.py"}
    tested: set[Path] = set()
    for test in sorted((root / "tests").rglob("test_*.py")):
        relative = test.relative_to(root / "tests").with_suffix("")
        if relative.parts[0] in THEMATIC or str(relative) in TESTS_ACROSS_MODULES:
            continue
        stem = relative.name.removeprefix("test_")
        named = {module for module in modules if module.parent == relative.parent}
        matches = {module for module in named if stem == module.name or stem.startswith(f"{module.name}_")}
        if not matches:
            yield f"tests/{relative}.py: no module proxy/{relative.parent / stem}.py; name it after the module it tests"
        tested |= matches
    for module in sorted(modules - tested):
        in_family = any(module.parent == head.parent and module.name.startswith(f"{head.name}_") for head in tested)
        elsewhere = TESTED_ELSEWHERE.get(str(module))
        if elsewhere and not (root / "tests" / elsewhere).exists():
            yield f"proxy/{module}.py: no tests/{elsewhere}, which is said to test it"
        elif not elsewhere and not in_family:
            yield f"proxy/{module}.py: no tests/{(module.parent / f'test_{module.name}.py').as_posix()}"


def check_budget(root: Path) -> Iterator[str]:
    """Modules stay short and say in their name what they hold."""
    for module in package_modules(root):
        lines = len((root / "proxy" / module).read_text(encoding="utf-8").splitlines())
        if lines > MAX_LINES:
            yield f"proxy/{module}: {lines} lines, the limit is {MAX_LINES}; split it by what it decides"
        if module.stem in CATCH_ALL:
            yield f"proxy/{module}: a name that says nothing; name it after what it holds"


def check_sql(root: Path) -> Iterator[str]:
    """SQL stands in few files, so that a change of the schema has few readers to look at."""
    for module in package_modules(root):
        if module.stem in SQL_MODULES or module.parts[0] in SQL_PACKAGES:
            continue
        tree = _parse(root, module)
        prose = _docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
                if SQL.match(node.value):
                    yield f"proxy/{module}:{node.lineno}: SQL; only {', '.join(sorted(SQL_MODULES))} hold it"


def check_edges(root: Path) -> Iterator[str]:
    """I/O libraries and the environment are used at the edges alone."""
    for module in package_modules(root):
        name = module.with_suffix("").as_posix()
        for node in ast.walk(_parse(root, module)):
            for library in _imports(node) & EDGES.keys():
                if not any(name == edge or name.startswith(f"{edge}/") for edge in EDGES[library]):
                    yield f"proxy/{module}: imports {library}; only {', '.join(EDGES[library])} may"
            if _reads_environment(node) and module.as_posix() != ENVIRONMENT_READER:
                yield f"proxy/{module}: reads the environment; take a value of the configuration instead"


def check_places(root: Path) -> Iterator[str]:
    """What is committed works on every machine."""
    own_path = str(root)
    for path in repository_files(root):
        name = path.relative_to(root).as_posix()
        if name in MAY_NAME_PLACES or path.is_symlink() or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            found = PLACES.search(line)
            if own_path in line or found:
                what = "the path of this checkout" if found is None or own_path in line else found[0]
                yield f"{name}:{number}: {what} does not belong here"


def check_locks(root: Path) -> Iterator[str]:
    """Both locks pin and hash every package, the smaller is part of the larger, and pyproject.toml agrees."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    development = project["dependencies"] + extras.get("embedded", []) + extras.get("dev", [])
    wanted = {"requirements.lock": project["dependencies"], "requirements-dev.lock": development}
    pins: dict[str, dict[str, str]] = {}
    for name, requirements in wanted.items():
        text = (root / name).read_text(encoding="utf-8")
        pins[name] = {}
        for block in re.split(r"\n(?=\S)", text):
            pin = re.match(r"([A-Za-z0-9._-]+)==(\S+)", block)
            if pin:
                pins[name][canonicalize_name(pin[1])] = pin[2]
            if "://" in block or (pin and "--hash=sha256:" not in block) or (not pin and block.strip("# \n")):
                yield f"{name}: {block.splitlines()[0]!r} is not pinned by version and hash; run make lock"
        for requirement in map(Requirement, requirements):
            version = pins[name].get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                yield f"{name}: {requirement} of pyproject.toml is not met (locked: {version}); run make lock"
    smaller, larger = pins["requirements.lock"], pins["requirements-dev.lock"]
    for package in sorted(package for package in smaller if larger.get(package) != smaller[package]):
        yield f"requirements-dev.lock: {package} differs from requirements.lock; run make lock"


def repository_files(root: Path) -> list[Path]:
    """Return what is or could be committed; without git, everything outside hidden directories."""
    listing = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        return [root / name for name in sorted(set(listing.stdout.decode().split("\0"))) if name]
    files = (path for path in root.rglob("*") if path.is_file())
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(root).parts))


def _parse(root: Path, module: Path) -> ast.Module:
    return ast.parse((root / "proxy" / module).read_text(encoding="utf-8"))


def _docstrings(tree: ast.Module) -> set[int]:
    """Return the identities of all strings that stand alone as a statement: docstrings, of attributes too."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _imports(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module:
        return {node.module.partition(".")[0]}
    return set()


def _reads_environment(node: ast.AST) -> bool:
    names = {"environ", "environb", "getenv"}
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and any(alias.name in names for alias in node.names)
    return isinstance(node, ast.Attribute) and node.attr in names and getattr(node.value, "id", None) == "os"


CHECKS: tuple[Check, ...] = (check_mirror, check_budget, check_sql, check_edges, check_places, check_locks)


def main() -> int:
    """Run every check on this checkout; return the exit status."""
    root = Path(__file__).resolve().parent.parent
    complaints = [complaint for check in CHECKS for complaint in check(root)]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
