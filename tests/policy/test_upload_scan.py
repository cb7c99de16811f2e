"""Forms and raw bodies: scanned while they pass, cut anywhere, and as long as they came."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import PolicyViolation
from proxy.nouns.findings import Verdict
from proxy.openai.multipart import MultipartObserver
from proxy.policy.upload_scan import UploadScan
from tests.policy.policies import policy_of
from tests.policy.secrets import EMAIL, HIGH, MEDIUM

CONTENT_TYPE = b"multipart/form-data; boundary=b0und"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def form(*parts: tuple[str, bytes], end: bytes = b"--b0und--\r\n") -> bytes:
    heads = (
        b'--b0und\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), content)
        for name, content in parts
    )
    return b"".join(heads) + end


def sent(body: bytes, cuts: list[int] = [], *, raw=False, denies=False, **settings):  # noqa: B006
    """Return what leaves and the verdict, `body` cut at `cuts`."""
    verdict = Verdict("v", 50)
    observer = None if raw else MultipartObserver(CONTENT_TYPE)
    if observer is not None:
        observer.follow()
    scan = UploadScan(policy_of(**settings), verdict, observer, denies_unscannable=denies)
    out, at = b"", 0
    for cut in [*sorted(cuts), len(body)]:
        piece, at = body[at:cut], cut
        out += scan.feed(piece)
    return out + scan.finish(), verdict


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_form_when_clean_then_it_is_the_same_whatever_the_cuts(data):
    body = form(("prompt", "a cät on the möon\r\n--b0un".encode()), ("file", PNG), ("language", b"en"), ("empty", b""))
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    out, verdict = sent(body, cuts)
    assert out == body
    assert [(part.place, part.reason) for part in verdict.unscanned] == [("file", "binary")]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_form_when_a_secret_is_masked_then_the_length_stays_whatever_the_cuts(data):
    body = form(("prompt", f"key {MEDIUM} end".encode()), ("user", b"u"))
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    out, verdict = sent(body, cuts)
    assert out == body.replace(MEDIUM.encode(), b"ghp_".ljust(len(MEDIUM), b"*"))
    assert [(s.place, s.action) for s in verdict.sightings] == [("prompt", "redact")]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_form_when_a_secret_is_blocked_then_no_byte_of_it_leaves_whatever_the_cuts(data):
    body = form(("file", f"A=1\nKEY={HIGH}\nB=2\n".encode()))
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    with pytest.raises(PolicyViolation) as caught:
        sent(body, cuts)
    assert (caught.value.param, caught.value.rules) == ("file", ("github-token",))


def test_raw_when_it_is_full_of_control_characters_then_it_is_binary():
    body = bytes(range(1, 32)) * 20
    assert sent(body, raw=True)[1].missed == {("prompt", "binary"): 1}


@pytest.mark.parametrize("begin", [b"\x01\x02", b"ID3 tags", b"RIFF ", b"BZh ", b"GIF8", b"fLaC", b"%PDF", b"R", b""])
@pytest.mark.parametrize("cut", [1, 2, 4, 7, 30])
def test_raw_when_it_begins_nearly_like_a_known_format_then_it_is_scanned_whatever_the_cuts(begin, cut):
    out, verdict = sent(begin + b" " + MEDIUM.encode(), [cut], raw=True)
    assert out == begin + b" " + b"ghp_".ljust(len(MEDIUM), b"*")
    assert verdict.missed == {}


@pytest.mark.parametrize("cut", [1, 3, 4, 8, 11])
@pytest.mark.parametrize("begin", [b"%PDF-1.7", b"RIFF    WAVE", b"GIF89a", b"BZh91AY&SY", b"\x1f\x8b"])
def test_raw_when_it_begins_like_a_known_format_then_it_is_binary_whatever_the_cuts(begin, cut):
    body = begin + b" and " + MEDIUM.encode()
    out, verdict = sent(body, [cut], raw=True)
    assert (out, verdict.missed) == (body, {("prompt", "binary"): 1})


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_form_when_a_nul_follows_a_secret_then_it_is_found_whatever_the_cuts(data):
    body = form(("file", f"A=1\nKEY={MEDIUM}\0{MEDIUM}\0".encode()))
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    out, verdict = sent(body, cuts)
    assert out == body.replace(MEDIUM.encode(), b"ghp_".ljust(len(MEDIUM), b"*"), 1)
    assert (len(verdict.sightings), dict(verdict.missed)) == (1, {("prompt", "binary"): 1})


def test_raw_when_text_then_it_is_scanned_as_body():
    out, verdict = sent(f"v=0\r\nmail {EMAIL}".encode(), raw=True)
    assert EMAIL.encode() in out
    assert [(s.place, s.action) for s in verdict.sightings] == [("body", "flag")]


@pytest.mark.parametrize(
    "body", [PNG, b"%PDF-1.7\n", b"PK\x03\x04abc", b"\0\0\0\x18ftypmp42", b"ab\0cd"],
    ids=["png", "pdf", "zip", "mp4", "nul"],
)  # fmt: skip
def test_raw_when_no_text_then_it_passes_and_is_named_once(body):
    out, verdict = sent(body * 3, [5], raw=True)
    assert out == body * 3
    assert verdict.missed == {("prompt", "binary"): 1}


def test_raw_when_no_text_and_such_parts_are_denied_then_it_is_refused():
    with pytest.raises(PolicyViolation, match="cannot be scanned"):
        sent(PNG, raw=True, denies=True)


MALFORMED = {
    "no head": b"--b0und\r\n" + b"x" * 20_000 + b" " + MEDIUM.encode(),
    "no end": form(("a", b"b"), end=b"") + b" " + MEDIUM.encode(),
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_form_when_malformed_then_its_rest_is_scanned_as_one_text(body):
    out, _ = sent(body, [3, 30])
    assert MEDIUM.encode() not in out
    assert len(out) == len(body)


def test_form_when_its_boundary_is_missing_then_it_is_one_text():
    verdict = Verdict("v", 50)
    observer = MultipartObserver(b"multipart/form-data")
    observer.follow()
    scan = UploadScan(policy_of(), verdict, observer, denies_unscannable=False)
    body = MEDIUM.encode()
    assert scan.feed(body) + scan.finish() == b"ghp_".ljust(len(MEDIUM), b"*")
    assert verdict.missed == {("prompt", "malformed"): 1}


def with_framing(secret: str) -> dict[str, bytes]:
    found, clean = secret.encode(), form(("a", b"b"))
    head = b"--b0und\r\nContent-Disposition: form-data; %b\r\n\r\nb\r\n--b0und--\r\n"
    return {
        "before the first part": found + b"\r\n" + clean,
        "behind the last part": clean + found + b"\r\n",
        "file name": head % (b'name="file"; filename="%b.wav"' % found),
        "field name": head % (b'name="%b"' % found),
        "head": head % (b'name="a"\r\nX-Note: ' + found),
        "other line ends": form(("a", found)).replace(b"\r\n", b"\n"),
        "other boundary": form(("a", found)).replace(b"b0und", b"b1und"),
    }


@pytest.mark.parametrize("place", with_framing(""))
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_form_when_a_secret_is_outside_of_its_contents_then_it_is_found_whatever_the_cuts(place, data):
    body, refused = with_framing(MEDIUM)[place], with_framing(HIGH)[place]
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8))
    out, verdict = sent(body, cuts)
    assert out == body.replace(MEDIUM.encode(), b"ghp_".ljust(len(MEDIUM), b"*"))
    assert [(s.place, s.action) for s in verdict.sightings] == [("form", "redact")]
    with pytest.raises(PolicyViolation) as caught:
        sent(refused, cuts)
    assert (caught.value.param, caught.value.rules) == ("form", ("github-token",))
