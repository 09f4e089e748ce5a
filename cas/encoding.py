"""The canonical encoding from which keys are computed, and the keys themselves.

Every value is tagged with its type and length, so that two different values never have the same
encoding, and every mapping is sorted, so that one value has only one encoding. The format is a
contract: `tests/cas/golden_keys.json` holds keys that must never change by accident. To change the
encoding on purpose, raise `VERSION` and commit new golden keys.

    none   n                   str    s<length>:<UTF-8 bytes>        (lone surrogates are kept)
    true   t   false   f       bytes  b<length>:<bytes>
    int    i<length>:<decimal> list   l<count>:<items>
                               map    m<count>:<key><value>...       (keys: str; sorted)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Union

from .digest import Digest, Key

VERSION = 1
_FORMATS = 64  # Format versions of one kind that are tried.

Value = Union[
    None, bool, int, str, bytes, "list[Value]", "tuple[Value, ...]", "Mapping[str, Value]"
]


def encode(value: Value) -> bytes:
    """Return the canonical encoding of `value`.

    Raises `TypeError` for a type that is not in the table above, such as float.
    """
    return b"".join(_parts(value))


def _parts(value: Value) -> Iterator[bytes]:
    if value is None:
        yield b"n"
    elif value is True:
        yield b"t"
    elif value is False:
        yield b"f"
    elif isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        yield b"s%d:%b" % (len(data), data)
    elif isinstance(value, bytes):
        yield b"b%d:%b" % (len(value), value)
    elif isinstance(value, int):
        digits = b"%d" % value
        yield b"i%d:%b" % (len(digits), digits)
    elif isinstance(value, (list, tuple)):
        yield b"l%d:" % len(value)
        for item in value:
            yield from _parts(item)
    elif isinstance(value, Mapping):
        yield b"m%d:" % len(value)
        if not all(isinstance(name, str) for name in value):
            raise TypeError("the keys of a mapping must be strings")
        for name, item in sorted((encode(name), item) for name, item in value.items()):
            yield name
            yield from _parts(item)
    else:
        raise TypeError(f"{type(value).__name__} has no canonical encoding")


def key(kind: str, format: int, inputs: Mapping[str, Value]) -> Key:
    """Compute the key of a node: `format` is the version of the artifacts of its `kind`."""
    return Key(Digest.of(encode(["flyte-build key", VERSION, kind, format, inputs])))


def is_key_of(found: Key, kind: str, inputs: Mapping[str, Value]) -> bool:
    """Whether `found` is the key of a node with these inputs, in any format version.

    For JSON that comes from another machine, and may claim any key.
    """
    try:
        return any(found == key(kind, format, inputs) for format in range(1, _FORMATS))
    except (TypeError, RecursionError):  # These inputs cannot have a key.
        return False
