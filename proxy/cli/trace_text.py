"""Traces as text for a terminal: a table of many, an outline of one.

Rule of the file: pure. Clients and providers choose the names in a trace, so nothing unprintable passes. A field
that is missing or null is shown as `-`.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from proxy.config.names import shown

WIDTH: Final = 100
"""Width of the table; in a wider terminal the model's name gets the rest."""
_COLUMNS: Final = (
    ("TIME", 8),
    ("TRACE", 36),
    ("OUTCOME", 15),
    ("TOKENS", 9),
    ("COST $", 8),
    ("TOOK", 6),
    ("MODEL", 12),
)
_LONG_TEXT: Final = 1000


def heading() -> str:
    """Return the first line of a table."""
    return _line([name for name, _ in _COLUMNS], WIDTH)


def row(trace: Mapping[str, Any], width: int = WIDTH) -> str:
    """Return one trace as a line of at most `width` columns. Tokens are input and output, thousands as k."""
    return _line(
        [
            _clock(trace.get("createdAt")),
            _text(trace.get("id")),
            _text(trace.get("outcome")),
            f"{_count(trace.get('inputTokens'))}/{_count(trace.get('outputTokens'))}",
            _cost(trace.get("totalCost")),
            _duration(trace.get("totalDurationMs")),
            _text(trace.get("model"), width),
        ],
        width,
    )


def outline(value: object, depth: int = 0) -> Iterator[str]:
    """Yield the lines of an indented outline of a JSON document."""
    indent = "  " * depth
    pairs: Iterable[tuple[str, object]] = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = ((f"[{index}]", inner) for index, inner in enumerate(value))
    for name, inner in pairs:
        label = f"{indent}{shown(name)}:"
        if isinstance(inner, dict | list) and inner:
            yield label
            yield from outline(inner, depth + 1)
        else:
            yield f"{label} {_text(inner, _LONG_TEXT)}"


def _line(cells: list[str], width: int) -> str:
    """Join the cells; the last one gets the rest of `width`."""
    widths = [fixed for _, fixed in _COLUMNS]
    widths[-1] += max(0, width - WIDTH)
    fitted = (
        (cell if len(cell) <= room else cell[: room - 1] + "~").ljust(room)
        for cell, room in zip(cells, widths, strict=True)
    )
    return " ".join(fitted).rstrip()


def _text(value: object, limit: int = 64) -> str:
    if value is None or value in ([], {}, ""):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")  # nano-dollars; never in scientific notation
    return shown(str(value), limit)


def _clock(value: object) -> str:
    """Return the time of day on this machine's clock."""
    try:
        return datetime.fromisoformat(str(value)).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "-"


def _count(value: object) -> str:
    if not isinstance(value, int):
        return "-"
    if value < 10_000:
        return str(value)
    return f"{value // 1000}k" if value < 1_000_000 else f"{value // 1_000_000}M"


def _cost(value: object) -> str:
    return f"{value:.6f}"[:8].rstrip(".") if isinstance(value, int | float | Decimal) else "-"


def _duration(value: object) -> str:
    if not isinstance(value, int | float | Decimal):
        return "-"
    if value < 1000:
        return f"{value:.0f}ms"
    return f"{value / 1000:.1f}s" if value < 100_000 else f"{value / 1000:.0f}s"
