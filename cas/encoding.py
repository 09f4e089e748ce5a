"""The canonical encoding that keys are made of, and the keys.

Every value is typed and framed by its length, so that two different values never encode alike, and
every mapping is sorted, so that one value never encodes in two ways. The format is a contract:
`tests/cas/golden_keys.json` holds keys that must never change by accident. To change the encoding
on purpose, raise `VERSION` and commit new golden keys.

    none   n                   text   s<length>:<UTF-8 bytes>        (lone surrogates are kept)
    true   t   false   f       bytes  b<length>:<bytes>
    int    i<length>:<decimal> list   l<count>:<items>
                               map    m<count>:<key><value>...       (keys: text; sorted)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Union

from .digest import Digest, Key

VERSION = 1
_FORMATS = 64  # Formats of a kind that a key may be of.

Value = Union[
    None, bool, int, str, bytes, "list[Value]", "tuple[Value, ...]", "Mapping[str, Value]"
]


def encode(value: Value) -> bytes:
    """The one encoding of `value`. Raises `TypeError` for a type that is not in the table above (a
    float is not).
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
            raise TypeError("the keys of a mapping must be text")
        for name, item in sorted((encode(name), item) for name, item in value.items()):
            yield name
            yield from _parts(item)
    else:
        raise TypeError(f"{type(value).__name__} has no canonical encoding")


def key(kind: str, format: int, inputs: Mapping[str, Value]) -> Key:
    """The key of a node: of this `kind`, whose artifacts have this `format` version, made from
    these `inputs`.
    """
    return Key(Digest.of(encode(["flyte-build key", VERSION, kind, format, inputs])))


def is_key_of(found: Key, kind: str, inputs: Mapping[str, Value]) -> bool:
    """Whether `found` is the key of such a node, in whichever format: JSON from elsewhere that
    names a key may say anything.
    """
    try:
        return any(found == key(kind, format, inputs) for format in range(1, _FORMATS))
    except (TypeError, RecursionError):  # Values that no key is made of.
        return False
