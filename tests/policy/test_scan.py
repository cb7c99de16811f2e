"""Everything a request says is looked at: plain, under a name, inside JSON inside a string, in base64, in a key."""

import base64
import json
import random
import re
import time
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.nouns.findings import Verdict
from proxy.policy import places
from proxy.policy.patience import Patience
from proxy.policy.places import OfKey
from proxy.policy.scan import scan
from tests.policy.policies import policy_of
from tests.policy.secrets import EMAIL, HIGH, MEDIUM, SSN

BOUND = 1 << 20
REDACT = {"prompt_actions": {"secret": "redact", "pii": "redact"}}


def found(document, **policy_settings):
    scanned = scan(policy_of(**policy_settings), document, BOUND)
    return [(s.place, s.finding.rule_id, s.action) for s in scanned.sightings]


def chat(content):
    return {"model": "m", "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": content}]}


def test_scan_when_nothing_is_found_then_nothing_is_changed():
    scanned = scan(policy_of(), chat("How do I truncate a string in C?"), BOUND)
    assert (scanned.sightings, scanned.sent, scanned.kept, scanned.blocked) == ([], {}, {}, None)
    assert scanned.characters > 30


def test_scan_when_a_secret_is_of_high_severity_then_it_blocks_and_names_its_place():
    scanned = scan(policy_of(), chat(f"my key: {HIGH}"), BOUND)
    assert scanned.blocked is not None
    assert scanned.blocked.place == "messages[1].content"
    assert (scanned.blocked.finding.start, scanned.blocked.finding.end) == (8, 8 + len(HIGH))
    assert scanned.sent == {}
    assert scanned.kept == {("messages", 1, "content"): "my key: ghp_********"}


def test_scan_when_a_secret_is_probable_then_it_is_masked():
    scanned = scan(policy_of(), chat(f"my key: {MEDIUM}"), BOUND)
    assert scanned.sent == {("messages", 1, "content"): "my key: ghp_********"} == scanned.kept


def test_scan_when_personal_data_is_only_flagged_then_it_is_sent_and_not_kept():
    scanned = scan(policy_of(), chat(f"write to {EMAIL}"), BOUND)
    assert [s.action for s in scanned.sightings] == ["flag"]
    assert scanned.sent == {}
    assert EMAIL not in scanned.kept["messages", 1, "content"]


def test_scan_when_a_command_is_flagged_then_a_trace_may_keep_it():
    scanned = scan(policy_of(), chat("rm -rf / --no-preserve-root"), BOUND)
    assert {s.action for s in scanned.sightings} == {"flag"}
    assert scanned.kept == {}


ARGUMENTS = json.dumps({"path": "a\tb", "deep": [{"value": HIGH}]})
ENCODED = base64.b64encode(f"the key is {HIGH}, keep it".encode()).decode()
LINES = f"STAGE=production\nREGION=eu-west-1\nSESSION {HIGH}\nZONE=a\n"


def escaped(text):
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


PLACES = {
    "content": (chat(HIGH), "messages[1].content"),
    "part": (chat([{"type": "text", "text": f"see {HIGH}"}]), "messages[1].content[0].text"),
    "tool result": ({"messages": [{"role": "tool", "content": HIGH}]}, "messages[0].content"),
    "arguments": (
        {"messages": [{"tool_calls": [{"function": {"arguments": json.dumps({"k": HIGH})}}]}]},
        "messages[0].tool_calls[0].function.arguments",
    ),
    "arguments with escapes": (
        {"messages": [{"tool_calls": [{"function": {"arguments": ARGUMENTS}}]}]},
        "messages[0].tool_calls[0].function.arguments.deep[0].value",
    ),
    "escaped arguments": (
        {"input": json.dumps({"a": HIGH}).replace("ghp", "\\u0067hp")},
        "input.a",
    ),
    "tool definition": ({"tools": [{"function": {"description": f"uses {HIGH}"}}]}, "tools[0].function.description"),
    "schema": (
        {"tools": [{"parameters": {"properties": {"a": {"enum": [HIGH]}}}}]},
        "tools[0].parameters.properties.a.enum[0]",
    ),
    "instructions": ({"instructions": HIGH, "input": "x"}, "instructions"),
    "responses item": (
        {"input": [{"type": "function_call_output", "output": f"X={HIGH}"}]},
        "input[0].output",
    ),
    "metadata": ({"metadata": {"note": HIGH}}, "metadata.note"),
    "key": ({"metadata": {HIGH: "x"}}, "metadata"),
    "key above": ({"metadata": {"a b": {"c": HIGH}}}, "metadata.*.c"),
    "base64": (chat(f"decode {ENCODED} for me"), "messages[1].content"),
    "lines of base64": (chat(base64.encodebytes(LINES.encode()).decode()), "messages[1].content"),
    "lines of base64 in a document": (
        {"input": json.dumps({"a": base64.encodebytes(LINES.encode()).decode()})},
        "input",
    ),
    "lines of base64 in JSON in prose": (
        chat("see " + json.dumps({"env": "env\n" + base64.encodebytes(LINES.encode()).decode()})),
        "messages[1].content",
    ),
    "UTF-16 in base64": (chat(base64.b64encode(LINES.encode("utf-16-le")).decode()), "messages[1].content"),
    "every letter escaped": (chat(f"it is {escaped(HIGH)}, yes"), "messages[1].content"),
    "escapes in a document in a document": (
        {"arguments": json.dumps({"b": json.dumps({"c": HIGH}).replace(HIGH, escaped(HIGH))})},
        "arguments",
    ),
    "escapes behind a blank": ({"arguments": " " + json.dumps({"c": HIGH}).replace(HIGH, escaped(HIGH))}, "arguments"),
    "in a URL": (chat(f"https://example.org/?t={HIGH.replace('ghp_', '%67hp%5F')}&x"), "messages[1].content"),
    "in HTML": (chat(f"<b>{HIGH.replace('ghp_', '&#103;hp&#x5f;')}</b>"), "messages[1].content"),
    "invisible": (chat(f"the {HIGH[:9]}\u200b{HIGH[9:20]}\u00ad{HIGH[20:]}"), "messages[1].content"),
    "list": ([["a", HIGH]], "[0][1]"),
    "text": (HIGH, ""),
    "text data URL": (
        {"file_data": f"data:text/plain;base64,{ENCODED}"},
        "file_data",
    ),
}


@pytest.mark.parametrize(("document", "place"), PLACES.values(), ids=PLACES.keys())
def test_scan_when_a_secret_stands_anywhere_then_it_is_found_there_once(document, place):
    assert found(document) == [(place, "github-token", "block")]


@pytest.mark.parametrize(("document", "place"), PLACES.values(), ids=PLACES.keys())
def test_scan_when_it_redacts_then_nothing_of_the_secret_is_left(document, place):
    scanned = scan(policy_of(**REDACT), document, BOUND)
    after = places.changed(document, scanned.sent)
    assert found(after) == []
    assert HIGH not in json.dumps(after)
    assert ENCODED not in json.dumps(after)


def test_scan_when_a_value_is_a_secret_by_its_name_then_the_name_counts():
    document = {"metadata": {"db_password": "kX72" + "jfhQ91zz"}, "messages": []}
    assert [place for place, _, _ in found(document)] == ["metadata.db_password"]
    assert found({"metadata": {"db_note": "kX72" + "jfhQ91zz"}, "messages": []}) == []


def test_scan_when_arguments_are_masked_then_they_stay_json_and_equal_but_for_it():
    arguments = f'{{"n": 12345678901234567890123, "token": "{MEDIUM}", "s": "a\\\\nb", "f": 1.10}}'
    scanned = scan(policy_of(), {"messages": [{"arguments": arguments}]}, BOUND)
    (written,) = scanned.sent.values()
    assert json.loads(written) == {**json.loads(arguments), "token": "ghp_********"}


def test_scan_when_a_disguised_secret_is_masked_then_all_of_it_is_hidden_and_nothing_else():
    text = f"it is {escaped(MEDIUM)} \\u0041 {MEDIUM}."
    scanned = scan(policy_of(), chat(text), BOUND)
    assert [*scanned.sent.values()] == ["it is ******** \\u0041 ghp_********."]
    assert {s.finding.end - s.finding.start for s in scanned.sightings} == {len(MEDIUM), len(escaped(MEDIUM))}


@pytest.mark.parametrize("written", [*permutations([HIGH, ENCODED, escaped(HIGH)])], ids=range(6))
def test_scan_when_a_secret_stands_in_several_forms_then_each_is_masked(written):
    scanned = scan(policy_of(**REDACT), chat("it is {}, {} and {}.".format(*written)), BOUND)
    (sent,) = scanned.sent.values()
    assert re.sub(r"\w*\*{8}", "?", sent) == "it is ?, ? and ?."
    places = [sighting.finding.start for sighting in scanned.sightings]
    assert places == sorted(places)


@pytest.mark.parametrize("hidden", [ENCODED, escaped(HIGH)], ids=["base64", "disguised"])
def test_scan_when_json_in_a_string_has_a_secret_in_two_forms_then_both_are_masked(hidden):
    arguments = json.dumps({"a": f"{HIGH}\n", "b": f"code: {hidden}"})
    scanned = scan(policy_of(**REDACT), {"messages": [{"arguments": arguments}]}, BOUND)
    (sent,) = scanned.sent.values()
    assert re.sub(r"\w*\*{8}", "?", sent) == '{"a":"?\\n","b":"code: ?"}'
    flagged = scan(policy_of(prompt_actions={"secret": "flag"}), {"messages": [{"arguments": arguments}]}, BOUND)
    assert (len(flagged.sightings), flagged.sent) == (1, {})


def test_scan_when_disguises_are_beyond_the_bound_then_that_is_named():
    text = f"{escaped('a')} {'x ' * 100}{escaped(HIGH)}"
    scanned = scan(policy_of(), chat(text), 100)
    assert ([part.reason for part in scanned.unscanned], scanned.sightings) == (["nested"], [])


@pytest.mark.parametrize("hidden", ["base64", "JSON"])
def test_scan_when_a_hidden_secret_follows_much_plain_text_then_it_is_found(hidden):
    text = ENCODED if hidden == "base64" else f'{{"k": "{escaped(HIGH)}"}}'
    scanned = scan(policy_of(), chat(["plain text, " * 80, text]), 1000)
    assert "github-token" in {each.finding.rule_id for each in scanned.sightings}


def test_scan_when_a_disguised_secret_ends_a_text_that_takes_most_of_the_bound_then_it_is_found():
    text = "plain text, " * 60 + escaped(HIGH)
    assert scan(policy_of(), chat(text), len(text) + 10).sightings
    scanned = scan(policy_of(), chat(escaped(HIGH) + " plain text" * 60), 500)
    assert (bool(scanned.sightings), [part.reason for part in scanned.unscanned]) == (True, ["nested"])


def test_scan_when_base64_is_beyond_the_bound_then_that_is_named():
    text = base64.b64encode(b"plain text, " * 100).decode()
    assert [part.reason for part in scan(policy_of(), chat(text), 1000).unscanned] == ["nested"]
    assert scan(policy_of(), chat(text), 2000).unscanned == []


def test_scan_when_half_of_many_findings_are_disguised_then_it_takes_no_square_of_their_number():
    text = f"{EMAIL} ada%2E{EMAIL}\n" * 3000
    began = time.process_time()
    scanned = scan(policy_of(), chat(text), BOUND)
    assert time.process_time() - began < 10
    assert len(scanned.sightings) == 6000


def test_scan_when_a_place_is_named_by_a_secret_then_the_name_hides_it():
    scanned = scan(policy_of(), {"metadata": {HIGH: {"x": HIGH}}}, BOUND)
    assert [s.place for s in scanned.sightings] == ["metadata", "metadata.ghp_********.x"]
    assert set(scanned.kept) == {("metadata", OfKey(HIGH)), ("metadata", HIGH, "x")}


def test_scan_when_there_are_media_then_they_are_named_and_not_read():
    image = "data:image/png;base64," + base64.b64encode(f"\x89PNG{HIGH} {HIGH}".encode("latin-1")).decode()
    scanned = scan(policy_of(), chat([{"type": "image_url", "image_url": {"url": image}}]), BOUND)
    assert [(part.place, part.reason) for part in scanned.unscanned] == [
        ("messages[1].content[0].image_url.url", "media")
    ]
    assert scanned.sightings == []


@pytest.mark.parametrize(
    "url",
    [
        "data:;base64, the key is {}",
        "data:image/png;base64,iVBORw0KGgo= and the key is {}",
        "data:;base64,{encoded}",
        "data:application/octet-stream;base64,{encoded}",
        "data:image/png;base64,{encoded}",
        "data:image/svg+xml;name=a.svg;base64,{encoded}",
    ],
)
def test_scan_when_a_text_only_looks_like_media_then_it_is_read(url):
    encoded = base64.b64encode(f"REGION=eu-west-1\nGITHUB_TOKEN={HIGH}\nSTAGE=production".encode()).decode()
    scanned = scan(policy_of(), chat(url.format(HIGH, encoded=encoded)), BOUND)
    assert "github-token" in {sighting.finding.rule_id for sighting in scanned.sightings}
    assert scanned.unscanned == []


def test_scan_when_nested_text_is_beyond_its_bound_then_that_is_named_and_the_rest_is_scanned():
    document = {"a": [ARGUMENTS] * 4, "b": HIGH}
    scanned = scan(policy_of(), document, len(ARGUMENTS) * 2)
    assert [part.reason for part in scanned.unscanned] == ["nested"]
    assert {s.place.partition("[")[0] for s in scanned.sightings} == {"a", "b"}


def test_scan_when_entered_then_the_verdict_has_everything():
    verdict = Verdict("v", 10)
    scan(policy_of(), chat(f"{HIGH} {SSN}"), BOUND).enter(verdict)
    assert sorted(verdict.counts.values()) == [1, 1]
    assert verdict.scanned_characters["prompt"] > 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet='ab \n\\"{}[]é😀\ud83d', max_size=12), min_size=1, max_size=6), st.data())
def test_scan_when_a_secret_is_put_anywhere_then_it_never_passes(texts, data):
    index = data.draw(st.integers(0, len(texts) - 1))
    texts[index] += f" {MEDIUM} "
    document = {"input": texts, "x": {"y": texts[index]}}
    after = places.changed(document, scan(policy_of(), document, BOUND).sent)
    assert MEDIUM not in json.dumps(after)
    assert [text.replace("ghp_********", MEDIUM) for text in after["input"]] == texts


def test_scan_when_base64_is_binary_or_an_odd_length_then_it_is_let_alone():
    noise = base64.b64encode(bytes(range(256)) * 40).decode()
    assert found(chat(f"{noise} {noise[:41]} {'A' * 45}")) == []
    assert found(chat(base64.b64encode(("ключ " * 8 + HIGH).encode()).decode()))


@pytest.mark.parametrize("size", range(38, 44))
@pytest.mark.parametrize("escape", ["\\n", "\\r", "\\t"])
@pytest.mark.parametrize("behind", ["", '"', "\\n", " é"])
def test_scan_when_a_run_of_base64_follows_an_escape_then_no_length_of_it_fails(size, escape, behind):
    assert found(chat(f"see{escape}{'src/components/widgets/inner/a_long_path_of_files'[:size]}{behind}")) == []
    assert found(chat(f"key{escape}AIzaSyB4x7Qm2Lk9Rt5Wn8PzHd6Jv3Yc1Xb0Kf2{behind}"))


def test_scan_when_a_text_is_large_then_its_cost_is_linear():
    def cost(size: int) -> float:
        document = chat(("ab.c-d " * 2 + "x" * 50 + " {") * (size // 66))
        began = time.thread_time()
        scan(policy_of(), document, BOUND)
        return time.thread_time() - began

    cost(10_000)
    assert min(cost(800_000) for _ in range(3)) < 16 * min(cost(100_000) for _ in range(3)) + 0.005


@pytest.mark.parametrize("before", [0, 7, (1 << 18) - 1, (1 << 18) - len(ENCODED) // 2, 1 << 18])
def test_scan_when_base64_stands_where_the_text_is_read_in_pieces_then_it_is_decoded_all_the_same(before):
    text = ("a word " * (before // 7 + 1))[:before] + f" {ENCODED} and more"
    assert found(chat(text))


def test_scan_when_there_is_much_base64_that_is_no_text_then_it_is_named_cheap_and_what_stands_beside_it_is_found():
    noise = base64.b64encode(random.Random(1).randbytes(3_000_000)).decode()
    began = time.thread_time()
    scanned = scan(policy_of(), chat(f"{noise} "), BOUND)
    assert time.thread_time() - began < 0.4
    assert [(part.place, part.reason) for part in scanned.unscanned] == [("messages[1].content", "binary")]
    assert scanned.sightings == []
    for text in (f"{HIGH} {noise[:20000]}", f"{noise[:20000]} {HIGH}"):
        assert found(chat(text)) == [("messages[1].content", "github-token", "block")]


class Watch(Patience):
    """Counts the looks at the clock."""

    def __init__(self):
        super().__init__(3600.0)
        self.looks = 0

    def check(self):
        self.looks += 1


def looks(document):
    watch = Watch()
    scan(policy_of(), document, BOUND, watch)
    return watch.looks


def test_scan_when_time_is_limited_then_decoded_text_is_read_in_slices_too():
    text = "How do I change this? " * 300
    encoded = base64.b64encode(text.encode()).decode()
    assert looks(encoded) >= len(encoded) // 1024 + len(text) // 1024


@pytest.mark.parametrize(
    "content", ["PK\x03\x04" + "\0" * 60, f"\ufeff{HIGH} and more text".encode("utf-16-le").decode("latin-1")]
)
def test_scan_when_a_file_is_binary_then_that_is_told_however_short_it_is(content):
    part = {"type": "file", "file": {"file_data": base64.b64encode(content.encode("latin-1")).decode()}}
    scanned = scan(policy_of(), chat([part]), BOUND)
    assert [(told.place, told.reason) for told in scanned.unscanned] == [
        ("messages[1].content[0].file.file_data", "binary")
    ]
    for text in ("plain text", "", base64.b64encode(b"a text that is long enough to be one").decode()):
        assert scan(policy_of(), chat([{"type": "file", "file": {"file_data": text}}]), BOUND).unscanned == []
