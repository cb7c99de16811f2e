"""The part of a channel's text that a scanner still needs, in bytes, and its original form.

    shown   {"key": "\\u0073k-abc\\n..."     the text in the stream, which is sent; positions are characters of it
    meant                sk-abc.            the scanned text: an escape counts as the one character it represents
    data                 sk-abc.            the same in UTF-8; places are bytes of everything scanned so far

For plain text, both forms are equal. Context before a channel is scanned but never shown.

Rule of the file: memory is what the window holds; what precedes it is only counted.
"""

from proxy.policy.detect import encode


class Window:
    """Grows at its end, is cut at its beginning."""

    def __init__(self, position: int = 0, context: str = "") -> None:
        self.data = encode(context)
        self.base = 0
        """Number of bytes before the window."""
        self.end = len(self.data)
        """The place after the last byte."""
        self.text = context
        """The same as characters."""
        self._characters = 0
        self._shift = position - len(context)
        """Difference between a position and a count of characters, apart from escapes."""
        self._written: list[tuple[int, str]] = []

    def append(self, meant: str, written: list[tuple[int, str]] | None = None) -> None:
        """Add text. `written`: the characters with a longer original form, by index, and that form."""
        if written:
            size = self._characters + len(self.text)
            self._written += [(size + index, how) for index, how in written]
        data = encode(meant)
        self.text += meant
        self.data += data
        self.end += len(data)

    def position(self, at: int) -> int:
        """Return how many characters of the channel precede the place `at`."""
        count = self._count(at)
        position = count + self._shift
        for index, how in self._written:
            if index >= count:
                break
            position += len(how) - 1
        return position

    def characters(self, start: int, end: int) -> int:
        """Return the number of characters between two places of plain text."""
        return end - start if len(self.text) == len(self.data) else self._count(end) - self._count(start)

    def meant(self, start: int, end: int) -> str:
        """Return the scanned text between two places."""
        return self.text[self._count(start) - self._characters : self._count(end) - self._characters]

    def shown(self, start: int, end: int) -> str:
        """Return its original form."""
        if not self._written and len(self.text) == len(self.data):
            return self.text[start - self.base : end - self.base]
        first, last = self._count(start), self._count(end)
        text = self.text[first - self._characters : last - self._characters]
        if self._written:
            parts, at = [], 0
            for index, how in self._written:
                if first <= index < last:
                    parts += [text[at : index - first], how]
                    at = index - first + 1
            text = "".join([*parts, text[at:]])
        return text

    def cut(self, size: int) -> int:
        """Drop the first `size` bytes, or a few less if a character would be split; return how many."""
        while self.data[size] & 0xC0 == 0x80:
            size -= 1
        count = self._count(self.base + size)
        if self._written:
            gone = [how for index, how in self._written if index < count]
            self._shift += sum(len(how) - 1 for how in gone)
            self._written = self._written[len(gone) :]
        self.text = self.text[count - self._characters :]
        self.data = self.data[size:]
        self.base += size
        self._characters = count
        return size

    def _count(self, at: int) -> int:
        """Return the number of scanned characters before `at`, including context."""
        if len(self.text) == len(self.data):
            return self._characters + at - self.base
        return self._characters + len(self.data[: at - self.base].decode("utf-8", "replace"))


def joined(spans: list[tuple[int, int]], cover: int) -> list[tuple[int, int]]:
    """Return the spans to be hidden after `cover`, with overlapping ones joined."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and start < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        elif start >= cover:
            found.append((start, end))
    return found
