"""The fenced blocks of the documentation, as a reader meets them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fence:
    """One block. `language`: what stands behind the backquotes, `sh` for example; empty for a drawing."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def fences(*languages: str) -> list[Fence]:
    """Return the blocks in these languages, page after page."""
    return [fence for page in PAGES for fence in _of(page) if fence.language in languages]


def _of(page: Path) -> Iterator[Fence]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        indent, language, block = found.groups()
        lines = [line.removeprefix(indent) for line in block.splitlines()]
        line = text.count("\n", 0, found.start()) + 2
        yield Fence(page.relative_to(ROOT).as_posix(), line, language, "\n".join(lines))
