import mmap
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.process import huge_pages
from proxy.process.huge_pages import use_huge_pages
from tests.fakes.kernel import HUGE_PAGE_BYTES as BLOCK
from tests.fakes.kernel import address, can_collapse

PAGE = mmap.PAGESIZE
pytestmark = pytest.mark.skipif(not can_collapse(), reason="this kernel cannot collapse pages")


@pytest.fixture
def memory() -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, 8 * BLOCK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_DONTDUMP)  # unlike its neighbours, with which the kernel would count it together
        yield memory


def first_block(memory: mmap.mmap) -> int:
    """The offset of the first whole block; a block is not used before and after it."""
    return -address(memory) % BLOCK + BLOCK


def fill(memory: mmap.mmap, offset: int, pages: int) -> None:
    for page in range(pages):
        memory[offset + page * PAGE] = 1


def figure(memory: mmap.mmap, name: str) -> int:
    """A figure of this mapping in bytes."""
    text = Path("/proc/self/smaps").read_text()
    for start, end, rest in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) (.*(?:\n[A-Z].*)+)", text, re.MULTILINE):
        if int(start, 16) <= address(memory) < int(end, 16):
            return int(re.search(rf"\n{name}: +(\d+) kB", rest)[1]) * 1024
    raise AssertionError("not mapped")


def test_use_when_blocks_are_used_then_they_are_huge_and_hold_what_they_held(memory) -> None:
    at = first_block(memory)
    memory[at : at + 3 * BLOCK] = content = bytes(range(256)) * (3 * BLOCK // 256)
    assert use_huge_pages() >= 3 * BLOCK
    assert figure(memory, "AnonHugePages") == 3 * BLOCK
    assert memory[at : at + 3 * BLOCK] == content


@pytest.mark.parametrize(("used", "moved"), [(0, 0), (0.7, 0), (0.75, 1), (0.9, 1)])
def test_use_when_a_block_is_used_in_part_then_it_is_moved_from_three_quarters_on(memory, used, moved) -> None:
    at, pages = first_block(memory), BLOCK // PAGE
    fill(memory, at, int(pages * used))
    fill(memory, at + 2 * BLOCK, pages)
    use_huge_pages()
    assert figure(memory, "AnonHugePages") == (1 + moved) * BLOCK
    assert figure(memory, "Rss") == BLOCK + (BLOCK if moved else int(pages * used) * PAGE)


def test_use_when_the_system_forbids_it_then_nothing_is_moved(memory, tmp_path, monkeypatch) -> None:
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    (tmp_path / "hpage_pmd_size").write_text(f"{BLOCK}\n")
    monkeypatch.setattr(huge_pages, "_SETTINGS", tmp_path)
    fill(memory, 0, len(memory) // PAGE)
    assert use_huge_pages() == 0
    assert figure(memory, "AnonHugePages") == 0


def test_use_when_the_kernel_has_no_huge_pages_then_nothing_is_moved(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(huge_pages, "_SETTINGS", tmp_path)
    assert use_huge_pages() == 0


def test_use_when_many_blocks_are_used_then_others_get_new_pages_between_them(memory, monkeypatch) -> None:
    at, pauses = first_block(memory), []
    monkeypatch.setattr(huge_pages.time, "sleep", pauses.append)
    memory[at : at + 3 * BLOCK] = bytes(3 * BLOCK)[:-1] + b"1"
    moved = use_huge_pages()
    assert len(pauses) >= moved // BLOCK >= 3
