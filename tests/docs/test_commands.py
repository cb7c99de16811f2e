"""Every fenced command of the documentation runs, typed as it stands there."""

import http.client
import itertools
import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Postgres
from tests.docs.desk import Desk, Filled
from tests.docs.fences import PAGES, Fence, fences
from tests.fakes.sidegate import ADMIN_KEY, Sidegate

# What the blocks about what is in effect, and about mistakes, are about.
KEYED = "upstream:\n  api_key: ${OPENAI_API_KEY}\ntimeouts:\n  gap_s: 120\n"
MISTAKEN = "server:\n  drain: 30\n\n\ngap_s: 120\ntracing: {content: redactd}\n"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def database(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    url = postgres.create_database(migrated_template)
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="module")
def proxy(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidegate]:
    """A proxy in front of the demo upstream."""
    running = Sidegate(tmp_path_factory.mktemp("documented"), "", database, {"OPENAI_API_KEY": ""})
    yield running.start().reach_database()
    running.stop()


@pytest.fixture(scope="module")
def trace_id(proxy: Sidegate) -> str:
    """A trace that has reached the database."""
    chat = {"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]}
    headers, _ = ask(proxy, "POST", "/v1/chat/completions", chat)
    proxy.trace(headers["x-sidegate-trace-id"])
    return headers["x-sidegate-trace-id"]


@pytest.fixture
def desk(proxy: Sidegate, trace_id: str, database: str, tmp_path: Path) -> Desk:
    """A desk, a project and an organization that nobody else uses."""
    number = next(_numbers)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    new = {"name": "docs", "userId": "alice", "projectId": "default-project"}
    key_id = ask(proxy, "POST", "/v1/sidegate/keys", new)[1]["id"]
    return Desk(tmp_path, Filled(proxy, trace_id, key_id, f"shop-{number}", f"acme-{number}", port), database)


def ask(proxy: Sidegate, method: str, path: str, document: object = None) -> tuple[Any, Any]:
    connection = http.client.HTTPConnection(*proxy.address, timeout=60)
    try:
        head = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json"}
        connection.request(method, path, None if document is None else json.dumps(document), head)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status in (200, 201), body
        return answer.headers, json.loads(body)
    finally:
        connection.close()


def prepare(desk: Desk, proxy: Sidegate, text: str) -> str:
    """Make what a block takes for granted, and return the block with the version that it replaces filled in."""
    names = desk.filled
    makes_project = re.search(r'projects create shop|"id": "shop"', text)
    if re.search(r"\b(acme|shop)\b", text) and not re.search(r'orgs create acme|"id": "acme"', text):
        ask(proxy, "POST", "/v1/sidegate/organizations", {"id": names.organization, "name": "Acme Inc."})
        if re.search(r"\bshop\b", text) and not makes_project:
            project = {"id": names.project, "organizationId": names.organization, "name": "Web shop"}
            ask(proxy, "POST", "/v1/sidegate/projects", project)
    if "-X DELETE" in text and "members/alice" in text:
        ask(proxy, "PUT", f"/v1/sidegate/projects/{names.project}/members/alice", {"role": "viewer"})
    if "quota/reset" in text:
        ask(proxy, "POST", "/v1/quota/update", {"userId": "alice", "projectId": names.project, "maxCostDaily": 10})
    if "If-Match" in text:
        etag = ask(proxy, "GET", f"/v1/sidegate/projects/{names.project}/config")[0]["ETag"]
        text = re.sub(r'"[0-9a-f]+\.\.\."', etag, text)
    if "git " in text:
        commands = ["git init -q", "git add .", "git -c user.name=a -c user.email=a@localhost commit -qm first"]
        assert desk.run("\n".join(commands)).returncode == 0
    return text


@pytest.mark.parametrize("fence", fences("sh"), ids=str)
def test_command_when_typed_then_it_succeeds(
    fence: Fence, desk: Desk, proxy: Sidegate, request: pytest.FixtureRequest
) -> None:
    more = {}
    if "sidegate migrate" in fence.text:  # it takes everything away
        more["DATABASE_URL"] = request.getfixturevalue("database_url")
    done = desk.run(prepare(desk, proxy, fence.text), **more)
    cut = (18,) if ",cut" in fence.text else ()  # curl's word for an answer without its end
    assert done.returncode in (0, *cut), f"{done.stdout[-2000:]}{done.stderr[-3000:]}"
    for answer in json_answers(done.stdout):
        assert cut or not answer.get("error"), answer


def json_answers(text: str) -> list[dict[str, Any]]:
    """Return what `curl` printed: it succeeds whatever the answer says."""
    decoder, found, at = json.JSONDecoder(), [], text.find("{")
    while at >= 0:
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            at += 1
        else:
            found.append(value)
        at = text.find("{", at)
    return found


@pytest.mark.parametrize("fence", fences("console"), ids=str)
def test_session_when_repeated_then_it_says_what_is_written(fence: Fence, desk: Desk) -> None:
    prompt, *lines = fence.text.splitlines()
    environ = {"OPENAI_API_KEY": "sk-of-the-documentation", "SIDEGATE_OPS_LISTEN": "", "SIDEGATE_ADMIN_KEY": ""}
    desk.write("sidegate.yaml", KEYED)
    if "mistakes in the configuration" in fence.text:
        desk.write("sidegate.yaml", MISTAKEN)
        environ["SIDEGATE_LISTN"] = "127.0.0.1:1"
    done = desk.run(prompt.removeprefix("$ "), **environ)
    said = done.stdout + done.stderr
    for line in lines:
        assert line == "..." or line in said.splitlines(), said


@pytest.mark.parametrize("fence", fences("python"), ids=str)
def test_python_when_run_then_it_works(fence: Fence, desk: Desk, proxy: Sidegate) -> None:
    segment = sorted((proxy.data_dir / "var" / "journal").glob("*.journal"))[0]
    desk.write("var/journal/0000000000000042.journal", "")
    (desk.path / "var/journal/0000000000000042.journal").write_bytes(segment.read_bytes())
    desk.write("example.py", desk.filled.into(fence.text))
    done = desk.run(f"{sys.executable} example.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("fence", fences("json", "yaml"), ids=str)
def test_document_when_read_then_it_is_one(fence: Fence) -> None:
    assert yaml.safe_load(fence.text) if fence.language == "yaml" else json.loads(fence.text)


CONFIGURATIONS = [
    fence
    for fence in fences("yaml")
    if re.match(r"(upstreams?|timeouts|policy|prices|otel|routing|cache):", fence.text)
]


@pytest.mark.parametrize("fence", CONFIGURATIONS, ids=str)
def test_configuration_when_checked_then_it_is_accepted(fence: Fence, desk: Desk) -> None:
    secrets = {name: "x" * 20 for name in re.findall(r"\$\{(\w+)\}", fence.text)}
    text = fence.text.replace("file:/etc/sidegate/secrets/", f"file:{desk.path}/")
    for name in re.findall(rf"file:{desk.path}/([\w-]+)", text):
        desk.write(name, "secret-of-the-documentation")
    desk.write("sidegate.yaml", text)
    done = desk.run("sidegate config check --config sidegate.yaml", **secrets)
    assert done.returncode == 0, done.stderr


def test_pages_when_they_name_another_file_then_it_is_there() -> None:
    missing = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                missing.append(f"{page.name}: {target}")
    assert missing == []
