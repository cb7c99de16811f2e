"""The text that Prometheus reads: families of counters, gauges and histograms.

The client library renders it as well, but loads a web server, its own HTTP client and parts of the mail library for
that: 2 MB in every process.

Rule of the file: text of values that were read before; nothing is counted here.

Source: Prometheus, "Exposition formats", text format 0.0.4.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final, Literal, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PLAIN_DIGITS: Final = 6
"""Numbers with more of them are written with an exponent, as in Go."""

Kind = Literal["counter", "gauge", "histogram"]
Labels = Sequence[tuple[str, str]]


class Family(NamedTuple):
    """A name and what is told under it. Names of counters end in `_total`, which is added where it is missing."""

    kind: Kind
    name: str
    help: str
    series: list[tuple[str, Labels, float]]
    """Suffix of the name, labels, value."""


def counter(name: str, text: str, series: Iterable[tuple[Labels, float]]) -> Family:
    """Return a family of counters."""
    full = name if name.endswith("_total") else f"{name}_total"
    return Family("counter", full, text, [("", labels, value) for labels, value in series])


def gauge(name: str, text: str, series: Iterable[tuple[Labels, float]]) -> Family:
    """Return a family of gauges."""
    return Family("gauge", name, text, [("", labels, value) for labels, value in series])


def histogram(
    name: str, text: str, bounds: Sequence[float], series: Iterable[tuple[Labels, Sequence[float], float]]
) -> Family:
    """Return a family of histograms. `series`: labels, a count for each bound and one above all, and the sum."""
    names = [*(repr(float(bound)) for bound in bounds), "+Inf"]
    told: list[tuple[str, Labels, float]] = []
    for labels, counts, total in series:
        up_to = list(accumulate(counts))
        told += [("_bucket", [*labels, ("le", bound)], count) for bound, count in zip(names, up_to, strict=True)]
        told += [("_count", labels, up_to[-1]), ("_sum", labels, total)]
    return Family("histogram", name, text, told)


def render(families: Iterable[Family]) -> bytes:
    """Return the exposition."""
    return "".join(line for family in families for line in _lines(family)).encode()


def _lines(family: Family) -> Iterator[str]:
    name, text = family.name, _escaped(family.help)
    yield f"# HELP {name} {text}\n# TYPE {name} {family.kind}\n"
    for suffix, labels, value in family.series:
        told = ",".join([f'{label}="{_quoted(what)}"' for label, what in sorted(labels)])
        yield f"{name}{suffix}{{{told}}} {_number(value)}\n" if told else f"{name}{suffix} {_number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


def _number(value: float) -> str:
    """Return a number as Go writes it."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    text = repr(float(value))
    point = text.find(".")
    if value > 0 and point > _PLAIN_DIGITS:
        mantissa = f"{text[0]}.{text[1:point]}{text[point + 1 :]}".rstrip("0.")
        return f"{mantissa}e+{point - 1:02d}"
    return text
