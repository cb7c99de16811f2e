"""Decodes large JSON in short steps, so that other threads get the interpreter in between.

A decoder reads a text in one call that nothing can interrupt: 60 ms for a hundred thousand small messages. So the text
is cut at commas outside strings, about every `_STEP` bytes, and each piece is completed to a document of its own:
containers that are open at its beginning are opened again before it, those open at its end are closed behind it. The
values of the pieces are then joined.

    {"model":"m","messages":[{..},{..}          the first piece, closed by  ,"end"]}
    {"on":["on"  ,{..},{..}]   ,"n":1  }        the next one. It begins with its comma, so a missing or a doubled comma
                                                is an error here as well

Rule of the file: the value and the errors are those of one call; of a duplicate key the last value counts. The members
that complete a piece (`on`, `end`) have random names, so no text can contain them.

Failure mode: `Unreadable`. Cost: that of one call if most of the text is lists of objects, else 20 ns per byte more.
"""

import json
import re
import secrets
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from proxy.event_loop.fair_threads import give_way
from proxy.openai.documents import dump_exact
from proxy.openai.long_strings import behind_string, is_long_beside_strings, load_parted, quoted
from proxy.openai.pieces import cut

ANY_DEPTH: Final = 1024
"""What the decoder reads at most."""
LARGE_BYTES: Final = 1 << 18
_MANY_STRUCTURALS: Final = 50_000
"""Fewer are read within 10 ms in one call."""
_MOST_STRUCTURALS: Final = 2_500_000
"""More than any answer has; decoded, each takes some 40 bytes, and so many 100 MB."""
_STEP: Final = 1 << 16
_COUNTED: Final = 1 << 20
_EMPTIED: Final = 1000
_TOGETHER: Final = 256
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_WHOLE: Final = re.compile(rb'(?:[^",]++|"(?:[^"\\]++|\\.)*+"|(,))*+', re.DOTALL)
"""All that is whole from a place outside strings; the group is the last comma."""
_QUOTE: Final = ord('"')
_BRACKETS: Final = b"{}[]"
_OTHERS: Final = bytes(code for code in range(256) if code not in _BRACKETS)
_CLOSED_BY: Final = {"{": "}", "[": "]"}

Read = Callable[[bytes], Any]


class Unreadable(ValueError):
    """It is not JSON, or nested too deeply. `at`: near which byte."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at


def is_slow(body: bytes) -> bool:
    """Tell whether `load_parted` may take more than a moment in one call, by at most four looks at each byte."""
    if len(body) <= LARGE_BYTES:
        return False
    return has_more(body, _MANY_STRUCTURALS) or is_long_beside_strings(body)


def has_more(body: bytes, structurals: int, signs: bytes = b",{[") -> bool:
    """Tell whether `body` has more commas and opening brackets, in strings too; counted in steps."""
    count = 0
    for at in range(0, len(body), _COUNTED):
        give_way()
        for sign in signs:
            count += body.count(sign, at, at + _COUNTED)
        if count > structurals:
            return True
    return False


def read(body: bytes, depth: int) -> Any:
    """Decode `body`, in steps where one call would take long. Raises ValueError."""
    return Steps(body, load_parted, depth).load() if is_slow(body) else load_parted(body)


def read_container(body: bytes) -> Any:
    """Decode an object or a list as `read` does; `None` for anything else, or what would take too much memory."""
    if body.lstrip()[:1] not in (b"{", b"["):
        return None
    if len(body) > _MOST_STRUCTURALS and has_more(body, _MOST_STRUCTURALS):
        return None
    try:
        return read(body, ANY_DEPTH)
    except ValueError:
        return None


def let_go(document: Any, body: bytes) -> None:
    """Free what `body` was decoded to and nobody needs any more, in steps if there is much of it."""
    if is_slow(body):
        dissolve(document)


def dissolve(document: Any) -> None:
    """Empty a decoded document that nobody holds any more, in steps: all of it at once takes 150 ms.

    Cost: some 0.2 us for each object or list that is not empty.
    """
    left: list[Any] = [document] if type(document) in (dict, list) else []
    emptied = 0
    while left:
        container = left.pop()
        emptied += 1
        if emptied % _EMPTIED == 0:
            give_way()
        while container:
            if type(container) is list:
                some = container[-_EMPTIED:]
                del container[-_EMPTIED:]
            elif len(container) <= _EMPTIED:
                some = list(container.values())
                container.clear()
            else:
                some = [container.popitem()[1] for _ in range(_EMPTIED)]
            left += [value for value in some if value and (type(value) is dict or type(value) is list)]


class Steps:
    """One text, read once. `read`: decodes one piece; `depth`: most levels."""

    def __init__(self, body: bytes, read: Read, depth: int) -> None:
        self._body = body
        self._read = read
        self._depth = depth
        name = secrets.token_hex(8)
        self._on, self._end = f"on-{name}", f"end-{name}"
        self._root: Any = None
        self._open: list[Any] = []
        """The containers that go on, from the outermost."""
        self._between = b"},{"
        """What stood around the last comma that was looked for: there will be more of these."""
        self.repeats_key = False
        """Whether a key stood in two pieces of one object; what `read` sees is not in it."""

    def load(self) -> Any:
        """Return what the text says. Raises Unreadable."""
        at, size = 0, len(self._body)
        while at < size:
            begun = "".join("[" if type(each) is list else "{" for each in self._open)
            at = self._likely(at, begun) or self._certain(at, begun)
        return self._root

    def _likely(self, at: int, begun: str) -> int | None:
        """Take a piece behind which the same is open as before it, and return its end; `None` where that is not so.

        Nearly all of a large body are such pieces, and that it was one is proven by reading it.
        """
        stop = self._body.rfind(self._between, at + 1, at + _STEP) + 1
        if not begun or not stop:
            return None
        try:
            self._take(at, stop, begun, begun)
        except Unreadable:
            return None
        return stop

    def _certain(self, at: int, begun: str) -> int:
        """Take a piece whatever it holds, and return its end."""
        stop, brackets = _cut(self._body, at, self._depth)
        self._between = self._body[stop - 1 : stop + 2 + self._body.startswith(b" ", stop + 1)]
        left = self._left_open(begun.encode() + brackets, at)
        is_last = stop == len(self._body)
        if bool(left) is is_last:
            raise Unreadable("unexpected end of data" if is_last else "unexpected content after document", stop)
        self._take(at, stop, begun, left)
        return stop

    def _take(self, at: int, stop: int, begun: str, left: str) -> None:
        """Read a piece. `begun`, `left`: the brackets that are open before and behind it."""
        give_way()
        piece = [self._opening(begun), *cut(self._body, at, stop), self._closing(left)]
        try:
            value = self._read(b"".join(piece))
        except ValueError as error:
            raise Unreadable(_reason(error), at) from None
        going_on = self._going_on(value, begun)
        ends = self._ends(value, left) if left else []
        assert ends is not None, "the mark was read, so it is somewhere"
        before, self._open = (
            self._open,
            [
                self._open[level] if level < len(going_on) and going_on[level] is end else end
                for level, end in enumerate(ends)
            ],
        )
        if before:
            self._join(before, going_on)
        else:
            self._root = value

    def _left_open(self, left: bytes, at: int) -> str:
        """Return which of the brackets are not closed; what else is wrong with them is for the decoder to say."""
        for _ in range(self._depth + 1):
            size = len(left)
            left = left.replace(b"{}", b"").replace(b"[]", b"")
            if len(left) == size:
                break
        if len(left) > self._depth or left.strip(b"{["):
            raise Unreadable("unexpected closing bracket, or nested too deeply", at)
        return left.decode()

    def _opening(self, begun: str) -> bytes:
        if not begun:
            return b""
        outer = "".join("[" if bracket == "[" else f'{{"{self._on}":' for bracket in begun[:-1])
        return (outer + (f'["{self._on}"' if begun[-1] == "[" else f'{{"{self._on}":0')).encode()

    def _closing(self, left: str) -> bytes:
        if not left:
            return b""
        end = f',"{self._end}"' if left[-1] == "[" else f',"{self._end}":0'
        return (end + "".join(_CLOSED_BY[bracket] for bracket in reversed(left))).encode()

    def _going_on(self, value: Any, begun: str) -> list[Any]:
        """Return the containers that were opened again, from the outermost."""
        found = []
        for _ in begun:
            found.append(value)
            value = value[0] if type(value) is list else value[self._on]
        return found

    def _ends(self, value: Any, left: str) -> list[Any] | None:
        """Return the containers that go on behind the piece, the mark of the innermost taken out; `None`: not here.

        The last member of an object is not the last that was written if its key stood there before: all are tried.
        """
        kind, is_list = type(value), left[0] == "["
        if kind is not (list if is_list else dict):
            return None
        if len(left) == 1:
            if not is_list:
                return None if value.pop(self._end, None) is None else [value]
            return [value] if value and value[-1] == self._end and value.pop() else None
        children = value[-1:] if is_list else reversed(value.values())
        for child in children:
            if (inner := self._ends(child, left[1:])) is not None:
                return [value, *inner]
        return None

    def _join(self, before: list[Any], going_on: list[Any]) -> None:
        """Add what the piece says to the containers that it goes on with."""
        for container, more in zip(before, going_on, strict=True):
            if type(container) is list:
                container += more[1:]
            else:
                del more[self._on]
                self.repeats_key = self.repeats_key or not more.keys().isdisjoint(container)
                container.update(more)


def dump_in_steps(document: Any, dump: Callable[[Any], bytes] = dump_exact) -> bytes:
    """Encode as `dump` does, small values together and long texts in pieces."""
    return b"".join(_written(document, dump))


def _written(value: Any, dump: Callable[[Any], bytes]) -> Iterator[bytes]:
    """Yield the JSON of a value without blanks."""
    if type(value) is str:
        yield from quoted(value, dump)
    elif _is_small(value):
        yield dump(value)
    else:
        is_list = type(value) is list
        before = b"[" if is_list else b"{"
        left = iter(value if is_list else value.items())
        while some := list(islice(left, _TOGETHER)):
            give_way()
            if _is_small(some):
                yield before + dump(some if is_list else dict(some))[1:-1]
                before = b","
                continue
            for element in some:
                yield before
                if not is_list:
                    yield from _written(element[0], dump)
                    yield b":"
                yield from _written(element if is_list else element[1], dump)
                before = b","
        yield b"]" if is_list else b"}"


def _is_small(value: Any) -> bool:
    """Tell whether the JSON of a value has about `_STEP` bytes at most."""
    left, stack = _STEP, [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is str:
            left -= len(item)
        elif item and (kind is dict or kind is list or kind is tuple):
            if len(item) > left:
                return False
            stack += (*item, *item.values()) if kind is dict else item
        left -= 1
        if left < 0:
            return False
    return True


def _cut(body: bytes, at: int, depth: int) -> tuple[int, bytes]:
    """Return where the piece that begins at `at` ends, at a comma outside strings or at the end; and its brackets.

    Raises Unreadable: without a comma it can only be nested, and is too deeply.
    """
    size, begun, comma, brackets, before = len(body), at, -1, b"", b""
    at += at > 0  # its own comma
    while at < size and comma - begun < _STEP // 2:
        whole = _WHOLE.match(body, at, min(at + _STEP, size))
        assert whole
        if whole.start(1) > 0:
            comma = whole.start(1)
            before = brackets + _brackets(body[at:comma])
        brackets += _brackets(body[at : whole.end()])
        if comma < 0 and len(brackets) > 3 * depth:
            raise Unreadable("nested too deeply", at)
        at = whole.end()
        if at < size and body[at] == _QUOTE:
            at = behind_string(body, at)
    return (comma, before) if comma - begun >= _STEP // 2 else (size, brackets)


def _brackets(text: bytes) -> bytes:
    return _STRING.sub(b"", text).translate(None, _OTHERS)


def _reason(error: ValueError) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)
