"""Keys and digests: their inputs, and that they never change by accident."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import encode, key
from flyte_build.errors import StoreError
from tests.support.processes import run

pytestmark = pytest.mark.quick

GOLDEN = Path(__file__).parent / "golden_keys.json"

texts = st.text() | st.binary(max_size=4).map(os.fsdecode)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def identity(value: Any) -> Any:
    """Return a form of `value` that is equal for equal values alone.

    It has types, and ignores the order of mappings.
    """
    if isinstance(value, dict):
        return "map", frozenset((name, identity(item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return "list", tuple(map(identity, value))
    return type(value).__name__, value


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text()), ids=lambda case: case["name"])
def test_a_key_is_what_it_was_in_every_version(case: dict[str, Any]) -> None:
    """These keys are a contract: they find the records of older versions.

    To change the encoding on purpose: raise `VERSION` in cas/encoding.py, run `python -m
    tests.cas.test_keys` (it writes golden_keys.json anew), and commit both together.
    """
    assert key(case["kind"], case["format"], inputs(case)) == case["key"]


def inputs(case: dict[str, Any]) -> dict[str, Any]:
    """Return a golden case's inputs; its bytes are written as {"bytes": "<hex>"} in JSON."""
    decoded: dict[str, Any] = json.loads(
        json.dumps(case["inputs"]),
        object_hook=lambda d: bytes.fromhex(d["bytes"]) if set(d) == {"bytes"} else d,
    )
    return decoded


@given(values, values)
@example(["ab", "c"], ["a", "bc"])
@example({"ab/c.py": ""}, {"a/bc.py": ""})
@example({"b.py": "x=1"}, {".py": "x=1b"})
@example({"a": "", "b": "Z"}, {"aZb": ""})
@example([["a"], "b"], [["a", "b"]])
@example([[], []], [[[]]])
@example({"a": ["b"]}, ["a", "b"])
@example(0, False)
@example(1, True)
@example("1", 1)
@example("a", b"a")
@example("", None)
@example("s1:a", ["a"])
@example("é", "e\u0301")
@example("\udcff", "ÿ")
@example("\ud83d\ude00", "\U0001f600")
def test_different_values_never_encode_alike(one: Any, other: Any) -> None:
    """The encoding is injective: typed, and framed by length."""
    assert (encode(one) == encode(other)) == (identity(one) == identity(other))


@given(st.dictionaries(texts, values, max_size=6), st.randoms())
def test_the_order_of_a_mapping_is_no_part_of_it(mapping: dict[str, Any], random: Any) -> None:
    """A mapping that is filled in another order is encoded to the same bytes."""
    items = list(mapping.items())
    random.shuffle(items)
    assert encode(dict(items)) == encode(mapping)


@given(values)
def test_no_encoding_begins_another(value: Any) -> None:
    """No encoding is a prefix of another, so what follows a value is not taken for its part."""
    encoded = encode(value)
    assert encode([value, None]) == b"l2:" + encoded + b"n"
    assert encode((value,)) == encode([value])


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        object(),
        {1, 2},
        {1: "a"},
        {b"a": 1},
        [1.5],
        {"a": {"b": 0.5}},
        bytearray(b"a"),
        1j,
    ],
)
def test_a_value_without_one_meaning_is_refused(value: Any) -> None:
    """Floats, sets and keys that are not strings have no canonical encoding, and are refused."""
    with pytest.raises(TypeError):
        encode(value)


def test_kind_format_and_inputs_each_change_the_key() -> None:
    """Kind, format and inputs of a node are all part of its key."""
    keys = {
        key("tree", 1, {"a": 1}),
        key("pack", 1, {"a": 1}),
        key("tree", 2, {"a": 1}),
        key("tree", 1, {"a": 2}),
        key("tree", 1, {}),
    }
    assert len(keys) == 5 and all(type(each) is Key for each in keys)


@pytest.mark.parametrize("seed", ["0", "1", "12345"])
def test_a_key_does_not_depend_on_the_hash_seed(seed: str) -> None:
    """Processes with other hash seeds compute the same key."""
    code = (
        "from flyte_build.cas.encoding import key; print(key('k', 1, {c: {'x' + c: [c]} for c in"
        " 'zebra'}))"
    )
    expected = key("k", 1, {c: {"x" + c: [c]} for c in "zebra"})
    assert run(code, env={**os.environ, "PYTHONHASHSEED": seed}) == expected


HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX,
        "sha256:",
        "sha256:" + HEX[1:],
        "sha256:" + HEX + "0",
        "sha256:" + HEX + "\n",
        "sha256:" + HEX.upper(),
        "SHA256:" + HEX,
        "sha512:" + HEX,
        "sha256:" + "g" * 64,
        "sha256:" + "../" * 21 + "a",
        "sha256:" + "٣" * 64,
        " sha256:" + HEX,
        "sha256:sha256:" + HEX[7:],
    ],
)
@pytest.mark.parametrize("kind", [Digest, Key])
def test_what_is_no_digest_is_refused(kind: type[Digest], text: str) -> None:
    """A digest must be `sha256:` and 64 lower-case hexadecimal digits."""
    with pytest.raises(StoreError):
        kind.parse(text)


@given(st.binary())
def test_a_digest_survives_being_written_and_read(data: bytes) -> None:
    """Parsing a digest returns what was printed."""
    digest = Digest.of(data)
    assert Digest.parse(str(digest)) == digest and type(Digest.parse(digest)) is Digest
    assert (
        digest == "sha256:" + digest.hex
        and digest.hex.startswith(digest.short)
        and len(digest.short) == 12
    )


if __name__ == "__main__":
    cases = [
        {**case, "key": key(case["kind"], case["format"], inputs(case))}
        for case in json.loads(GOLDEN.read_text())
    ]
    GOLDEN.write_text("[\n" + ",\n".join("  " + json.dumps(case) for case in cases) + "\n]\n")
