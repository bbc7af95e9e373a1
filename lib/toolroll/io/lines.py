"""Lines out of chunks of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

MOST_BYTES = 256 << 20  #: of a line
_BOM = b"\xef\xbb\xbf"


def strip_bom(chunk: bytes) -> bytes:
    """The first bytes of a file without the byte-order mark that some editors write."""
    return chunk.removeprefix(_BOM)


def split_lines(chunks: Iterable[bytes], most: int = MOST_BYTES) -> Iterator[list[bytes]]:
    r"""Lines without their newline out of chunks of bytes, as many at a time as a chunk completes.

    Takes time linear in the length of a line, however many chunks it spans. OverflowError for one that is still going
    on after `most` bytes: a small compressed file may hold a line that no memory does.

    >>> list(split_lines([b"a\nb", b"c", b"\n", b"d"]))
    [[b'a'], [b'bc'], [b'd']]
    """
    rest: list[bytes] = []
    size = 0
    for chunk in chunks:
        lines = chunk.split(b"\n")
        rest.append(lines[0])
        size += len(lines[0])
        if len(lines) > 1:
            lines[0] = b"".join(rest)
            rest = [lines.pop()]
            size = len(rest[0])
            yield lines
        elif size > most:
            raise OverflowError(f"a line of more than {most >> 20} MiB")
    last = b"".join(rest)
    if last:
        yield [last]
