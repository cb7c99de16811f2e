"""Server-sent events: replaces the data of one event, with its framing preserved.

Rule of the file: everything but the values of data lines is kept: names, ids, comments, blanks after colons, CR, LF and
CRLF. Source: WHATWG HTML, section 9.2.6, "Interpreting an event stream".
"""

from proxy.openai.sse import BOM, single_event, split_field


def reframed(event: bytes, data: bytes) -> bytes:
    """Return `event`, complete with its blank line, with `data` in place of its own.

    Data with as many lines as before is replaced line by line, other data at the place of the first line.
    """
    if single_event(event) is not None and b"\n" not in data:
        return b"data: %b\n\n" % data
    lines = event.splitlines(keepends=True)
    values = {place: value for place, line in enumerate(lines) if (value := _value(line)) is not None}
    new = data.split(b"\n")
    gone: set[int] = set()
    if len(new) != len(values):
        gone = set(sorted(values)[1:])
        new = [data, *(b"" for _ in gone)]
    fresh = dict(zip(values, new, strict=True))
    return b"".join(
        _with_value(line, values[place], fresh[place]) if place in values else line
        for place, line in enumerate(lines)
        if place not in gone
    )


def _value(line: bytes) -> bytes | None:
    """Return the value of a data line, `None` for any other line."""
    label, value = split_field(line.rstrip(b"\r\n").removeprefix(BOM))
    return value if label == b"data" else None


def _with_value(line: bytes, value: bytes, new: bytes) -> bytes:
    """Return a data line with a new value; several such lines if the value has several."""
    content = line.rstrip(b"\r\n")
    head, end = content[: len(content) - len(value)], line[len(content) :]
    if not value:
        head = head.partition(b":")[0] + b": "
    again = head.removeprefix(BOM)
    return b"".join((again if place else head) + part + end for place, part in enumerate(new.split(b"\n")))
