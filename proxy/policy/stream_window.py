"""The last part of a channel's text that a scanner still needs, in bytes, and how it was written.

    shown   {"key": "\\u0073k-abc\\n..."     what stands in the stream and leaves; positions are characters of it
    meant                sk-abc.            what is scanned: here and there one character that was written as several
    data                 sk-abc.            the same in UTF-8; places are bytes of all that was ever scanned

Plain text is meant as it is shown. Text that goes before a channel as context is scanned and shows nowhere.

Rule of the file: memory is what the window holds; what went before is only counted.
"""

from proxy.policy.detect import encode


class Window:
    """Grows at its end, is cut at its beginning."""

    def __init__(self, position: int = 0, context: str = "") -> None:
        self.data = encode(context)
        self.base = 0
        """How many bytes went before."""
        self.end = len(self.data)
        """The place behind the last byte."""
        self._text = context
        self._characters = 0
        self._shift = position - len(context)
        """What to add to a count of characters to have a position, but for what was written as several."""
        self._written: list[tuple[int, str]] = []

    def append(self, meant: str, written: list[tuple[int, str]] | None = None) -> None:
        """Add text. `written`: which of its characters were written as several, by index, and how."""
        if written:
            size = self._characters + len(self._text)
            self._written += [(size + index, how) for index, how in written]
        data = meant.encode("utf-8", "replace")  # as `encode` does; a call saved, as each event comes by here
        self._text += meant
        self.data += data
        self.end += len(data)

    def position(self, at: int) -> int:
        """Return how many characters of the channel stand before the place `at`."""
        count = self._count(at)
        position = count + self._shift
        for index, how in self._written:
            if index >= count:
                break
            position += len(how) - 1
        return position

    def characters(self, start: int, end: int) -> int:
        """Return how many characters stand between two places of plain text."""
        return end - start if len(self._text) == len(self.data) else self._count(end) - self._count(start)

    def meant(self, start: int, end: int) -> str:
        """Return what stands between two places."""
        return self._text[self._count(start) - self._characters : self._count(end) - self._characters]

    def shown(self, start: int, end: int) -> str:
        """Return how it was written."""
        if not self._written and len(self._text) == len(self.data):
            return self._text[start - self.base : end - self.base]
        first, last = self._count(start), self._count(end)
        text = self._text[first - self._characters : last - self._characters]
        if self._written:
            parts, at = [], 0
            for index, how in self._written:
                if first <= index < last:
                    parts += [text[at : index - first], how]
                    at = index - first + 1
            text = "".join([*parts, text[at:]])
        return text

    def cut(self, size: int) -> int:
        """Forget the first `size` bytes, or a few less where a character would be cut; return how many."""
        while self.data[size] & 0xC0 == 0x80:
            size -= 1
        count = self._count(self.base + size)
        if self._written:
            gone = [how for index, how in self._written if index < count]
            self._shift += sum(len(how) - 1 for how in gone)
            self._written = self._written[len(gone) :]
        self._text = self._text[count - self._characters :]
        self.data = self.data[size:]
        self.base += size
        self._characters = count
        return size

    def _count(self, at: int) -> int:
        """Return how many characters were meant before `at`, context included."""
        if len(self._text) == len(self.data):
            return self._characters + at - self.base
        return self._characters + len(self.data[: at - self.base].decode("utf-8", "replace"))
