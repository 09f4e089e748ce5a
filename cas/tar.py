"""Deterministic tar archives in GNU format (the GNU tar manual, "Basic Tar Format").

There is one way to write each member: no owner, no time, mode 0644 or 0755, long names as
`@LongLink` members before their own. The reader accepts only archives that are written this way.
"""

from __future__ import annotations

from typing import BinaryIO, NamedTuple, Protocol

from flyte_build.errors import ExtractionRefused

BLOCK = 512
_ZEROS = b"\0" * BLOCK
END = b"\0" * (2 * BLOCK)
_OCTAL_LIMIT = 8**11  # Sizes from here on are written in base 256.
_OWNERS = b"\x000000000\x000000000\0"
_TIME = b"00000000000\0"
_TAIL = b"ustar  \0".ljust(BLOCK - 257, b"\0")
_SUM = sum(_OWNERS + b" " * 8 + _TIME + _TAIL)  # The checksum counts its own field as blanks.


class Writable(Protocol):
    """A destination of extracted bytes."""

    def write(self, data: bytes, /) -> int:
        """Write `data`."""


class Member(NamedTuple):
    """A file (`executable` or not) of `size` bytes, or a link to `target`."""

    name: bytes
    size: int
    executable: bool = False
    target: bytes | None = None


def header(member: Member) -> bytes:
    """Return the header blocks that precede a member's bytes."""
    blocks = b""
    if len(member.name) > 100:
        blocks += _long(b"L", member.name)
    if member.target is None:
        return blocks + _block(
            member.name, b"0000755" if member.executable else b"0000644", member.size, b"0", b""
        )
    if len(member.target) > 100:
        blocks += _long(b"K", member.target)
    return blocks + _block(member.name, b"0000777", 0, b"2", member.target)


def folder(name: bytes) -> bytes:
    """Return the header blocks of a directory, with mode 0755.

    For directories that may be empty, or whose mode matters; bundles have none.
    """
    name += b"/"
    return (_long(b"L", name) if len(name) > 100 else b"") + _block(name, b"0000755", 0, b"5", b"")


def padding(size: int) -> bytes:
    """Return the zeros that follow a member of `size` bytes."""
    return b"\0" * (-size % BLOCK)


def padded(size: int) -> int:
    """Return the size that a file of `size` bytes takes in an archive, except for a long name."""
    return BLOCK + size + -size % BLOCK


def _long(kind: bytes, text: bytes) -> bytes:
    return (
        _block(b"././@LongLink", b"0000000", len(text) + 1, kind, b"")
        + text
        + b"\0"
        + padding(len(text) + 1)
    )


def _block(name: bytes, mode: bytes, size: int, kind: bytes, target: bytes) -> bytes:
    octal = b"%011o\0" % size if size < _OCTAL_LIMIT else b"\x80" + size.to_bytes(11, "big")
    name, target = name[:100], target[:100]
    # Zeros do not change the sum.
    checksum = _SUM + sum(name) + sum(mode) + sum(octal) + sum(kind) + sum(target)
    return b"%b%b%b%b%b%06o\0 %b%b%b" % (
        name.ljust(100, b"\0"),
        mode,
        _OWNERS,
        octal,
        _TIME,
        checksum,
        kind,
        target.ljust(100, b"\0"),
        _TAIL,
    )


class Reader:
    """A reader of an untrusted archive, member by member.

    It raises `ExtractionRefused` for anything unexpected.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def next(self) -> Member | None:
        """Return the next member, or None at the end.

        The end must be two blocks of zeros with nothing after them.
        """
        long: dict[bytes, bytes] = {}
        blocks = b""
        while True:
            block = self._take(BLOCK)
            if block == END[:BLOCK]:
                if long or self._take(BLOCK) != END[:BLOCK] or self._stream.read(1):
                    raise _refused("it does not end with two blocks of zeros")
                return None
            kind, size = block[156:157], _size(block[124:136])
            if kind in (b"L", b"K") and kind not in long and size <= 4097:
                text = self._take(size + -size % BLOCK)
                if block != _block(b"././@LongLink", b"0000000", size, kind, b"") or text[
                    size - 1 :
                ].strip(b"\0"):
                    raise _refused("a long name is malformed")
                long[kind] = text[: size - 1]
                blocks += block + text
                continue
            name = long.get(b"L", block[:100].rstrip(b"\0"))
            target = long.get(b"K", block[157:257].rstrip(b"\0")) if kind == b"2" else None
            member = Member(name, size, block[100:107] == b"0000755", target)
            if header(member) != blocks + block:
                raise _refused(
                    f"the member {name[:200]!r} has a type or form that no bundle contains"
                )
            return member

    def skim(self, size: int, into: Writable | None, chunk: int = 1 << 20) -> bytes:
        """Read a member's bytes and the padding after them.

        The bytes are written to `into` piece by piece, or returned if `into` is None.
        """
        rest = -size % BLOCK
        if into is None:
            data = self._take(size + rest)
            between = data[size:]
        else:
            data, left = b"", size
            while left:
                piece = self._take(min(left, chunk))
                into.write(piece)
                left -= len(piece)
            between = self._take(rest)
        if between != _ZEROS[:rest]:
            raise _refused("there is data between its members")
        return data[:size]

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) != size:
            raise _refused("it is truncated")
        return data


def _size(field: bytes) -> int:
    try:
        size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else int(field[:11], 8)
    except ValueError:
        size = -1
    if size < 0:
        raise _refused("a size is not a number")
    return size


def _refused(why: str) -> ExtractionRefused:
    return ExtractionRefused(
        "An archive was refused", why=why, hint="Do not use the source that it came from."
    )
