"""Write docs/api.md from the OpenAPI document, so that it says what the server does; a test holds it to that.

python -m scripts.generate_api_docs docs/api.md
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from proxy.api.openapi import document
from proxy.auth.roles import PERMISSIONS, ROLES
from proxy.config.schema import Database as Settings
from proxy.db.pool import Database
from tests.fakes.own_api import own_api

HEAD = """\
# The management API

Made from the routes by `python -m scripts.generate_api_docs docs/api.md`; do not edit. The same as an OpenAPI 3.1
document, for clients and tools: `GET /v1/sidegate/openapi.json`, without a key, as it holds nothing but what the
source says.

```sh
export SIDEGATE=http://127.0.0.1:8080 KEY=...     # the admin key, or sg-...
curl -H "Authorization: Bearer $KEY" $SIDEGATE/v1/sidegate/whoami
```

Everything else below `/v1/` is the provider's. What holds for every route here:

- A key goes into `Authorization: Bearer`. A key sees its own project; another does not exist for it (404). The admin
  key sees everything. Roles stand in [multi-tenancy.md](multi-tenancy.md#roles).
- Names are camelCase, times ISO 8601 in UTC, durations milliseconds, money dollars as numbers with 9 exact digits.
- Unknown, repeated and wrong parameters are all refused at once: 400 `invalid_parameter`, `param` names the first.
- Lists come in pages: `limit` entries, and `nextCursor`, the `cursor` of the next page, `null` on the last one.
- Errors have OpenAI's shape, `{"error": {"message", "type", "code", "param"}}`: 400 for a mistake in the request, 401
  for no valid key, 403 for a role or a limit of the key, 404 for what is not there, 408 and 413 for a body that comes
  too slowly or is too large, 429 after too many wrong keys, 503 with `Retry-After` while PostgreSQL is away.
- Where 304 is named, an answer has an `ETag`, and `If-None-Match` with it spares the body while it is still the same.
- Every change has a row in the audit log. A change whose row cannot be written is not made.
"""

EXAMPLES: Mapping[str, Any] = {
    "GET /v1/traces": "?projectId=shop&outcome=timeout&limit=20",
    "GET /v1/quota/status": "?userId=alice&projectId=shop",
    "GET /v1/quota/top": "?projectId=shop&limit=5",
    "POST /v1/quota/update": {"userId": "alice", "projectId": "shop", "maxCostDaily": 12.5},
    "POST /v1/quota/reset": {"userId": "alice", "projectId": "shop"},
    "GET /v1/analytics": "?projectId=shop&startDate=2026-11-01&groupBy=week",
    "GET /v1/analytics/check": "?day=2026-11-23",
    "POST /v1/analytics/rebuild": "?day=2026-11-23",
    "POST /v1/sidegate/keys": {
        "name": "laptop",
        "userId": "alice",
        "projectId": "shop",
        "scopes": {"models": ["gpt-4o-mini"], "surfaces": ["data"]},
    },
    "POST /v1/sidegate/keys/{keyId}/rotate": {"overlapSeconds": 3600},
    "POST /v1/sidegate/organizations": {"id": "acme", "name": "Acme Inc."},
    "PATCH /v1/sidegate/organizations/{organizationId}": {"metadata": {"plan": "pro"}},
    "POST /v1/sidegate/projects": {"id": "shop", "organizationId": "acme", "name": "Web shop"},
    "PATCH /v1/sidegate/projects/{projectId}": {"name": "Web shop"},
    "PUT /v1/sidegate/projects/{projectId}/config": {"security": {"redactSecrets": True}},
    "PUT /v1/sidegate/projects/{projectId}/members/{userId}": {"role": "admin"},
    "POST /v1/route": {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]},
    "POST /v1/sidegate/policy/test": {"text": "my key is AKIA..."},
}
IDS = {
    "{traceId}": "01a2074a-66d2-7ad1-8be8-ea11ba481b87",
    "{keyId}": "abcdef012345",
    "{organizationId}": "acme",
    "{projectId}": "shop",
    "{userId}": "alice",
}
EVERYWHERE = {"400", "401", "403", "404", "408", "413", "429", "503"}


def pages(described: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the page."""
    yield HEAD
    tags: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            tags.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    for tag, operations in tags.items():
        yield f"## {tag}\n"
        for method, path, operation in operations:
            yield from _route(method, path, operation)
    yield from _components(described["components"]["schemas"])


def _route(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {method} {path}\n"
    texts = operation["description"].split("\n\n")
    yield from (
        f"{' '.join(text.split())}{'' if text.endswith('.') else '.'}\n" for text in texts if "Needs" not in text
    )
    yield f"{_who(operation)}\n"
    rows = [*_rows(operation)]
    if rows:
        yield "| Parameter | In | |"
        yield "|---|---|---|"
        yield from rows
        yield ""
    status, answer = next(iter(operation["responses"].items()))
    media = next(iter(answer["content"].values()))  # the first is JSON
    yield f"Answers {status}{_answer(media['schema'])}."
    others = [code for code in operation["responses"] if code not in EVERYWHERE | {status}]
    yield f"Also {', '.join(others)}.\n" if others else ""
    yield "```sh"
    yield _curl(method, path, operation)
    yield "```\n"


def _who(operation: Mapping[str, Any]) -> str:
    permission = operation.get("x-permission")
    if permission is None:
        return "Who may: everybody, without a key." if operation.get("security") == [] else "Who may: every key."
    least = next((role for role in ROLES if permission in PERMISSIONS[role]), None)
    who = f"{least}{'' if least == 'owner' else ' and above'}" if least else "the admin key"
    return f"Who may: {who} (`{permission}`)."


def _rows(operation: Mapping[str, Any]) -> Iterator[str]:
    for parameter in operation["parameters"]:
        needed = " **required**" if parameter["required"] and parameter["in"] != "path" else ""
        yield f"| `{parameter['name']}` | {parameter['in']} | {parameter.get('description', '')}{needed} |"
    body = operation.get("requestBody", {"content": {}})["content"].get("application/json", {}).get("schema", {})
    for name, member in body.get("properties", {}).items():
        needed = " **required**" if name in body.get("required", ()) else ""
        yield f"| `{name}` | body | {member.get('description', '')}{needed} |"


def _answer(schema: Mapping[str, Any]) -> str:
    """Return what an answer is: a component by its name, or its members."""
    if "$ref" in schema:
        return f" with {_named(schema)}"
    members = ", ".join(f"`{name}` ({_form(member)})" for name, member in schema.get("properties", {}).items())
    return f" with {members}" if members else " with a JSON object"


def _form(schema: Mapping[str, Any]) -> str:
    """Return the form of a member in a few words."""
    if "$ref" in schema:
        return _named(schema)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_form(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(f"`{name}`" for name in schema["enum"])
    if schema.get("type") == "array":
        return f"list: {_form(schema['items'])}"
    if "properties" in schema:
        return "{" + ", ".join(f"`{name}`" for name in schema["properties"]) + "}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"by name: {_form(schema['additionalProperties'])}"
    kind = schema.get("format", schema.get("type", "anything"))
    return " or ".join(kind) if isinstance(kind, list) else {"string": "text", "date-time": "time"}.get(kind, kind)


def _named(schema: Mapping[str, Any]) -> str:
    name = schema["$ref"].rpartition("/")[2]
    return f"[{name}](#{name.lower()})"


def _components(schemas: Mapping[str, Any]) -> Iterator[str]:
    yield "## What stands in answers\n"
    for name, schema in sorted(schemas.items()):
        yield f"### {name}\n\n| Member | |\n|---|---|"
        yield from (f"| `{member}` | {_form(form)} |" for member, form in schema["properties"].items())
        yield ""


def _curl(method: str, path: str, operation: Mapping[str, Any]) -> str:
    example = EXAMPLES.get(f"{method} {path}", "")
    for name, value in IDS.items():
        path = path.replace(name, value)
    words = ["curl"]
    if method != "GET":
        words += ["-X", method]
    if operation.get("security") != []:
        words += ["-H", '"Authorization: Bearer $KEY"']
    if "If-Match" in {parameter["name"] for parameter in operation["parameters"]}:
        words += ["-H", "'If-Match: \"3f1c...\"'"]
    query = example if isinstance(example, str) else ""
    words.append(f'"$SIDEGATE{path}{query}"' if query else f"$SIDEGATE{path}")
    if not isinstance(example, str):
        words += ["-d", f"'{json.dumps(example)}'"]
    return " ".join(words)


def page() -> str:
    """Return the whole page."""
    api = own_api(Database(Settings()))
    return "\n".join(pages(document((*api.table, *api.public), ""))).rstrip() + "\n"


def main() -> None:
    """Write the page to the file that was named."""
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
