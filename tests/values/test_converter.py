"""The converter: text, JSON and objects to wire and back."""

from __future__ import annotations

import dataclasses
import enum
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import (
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_build.declarations.interface import Interface, Parameter, interface_of
from flyte_build.errors import InputError
from flyte_build.values.annotations import type_of
from flyte_build.values.type import Mismatch, from_document

pytestmark = pytest.mark.quick


@dataclasses.dataclass
class Inner:
    x: int
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Outer:
    inner: Inner
    ratio: float = 0.5
    when: datetime | None = None


class Color(enum.Enum):
    RED = "red"
    BLUE = 3
    CRIMSON = "red"  # noqa: PIE796  # Another name, which can be given too.
    GREEN = "RED"  # Another member's name.


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Options(TypedDict):
    depth: int
    note: NotRequired[str]


@dataclasses.dataclass
class Node:
    value: int
    children: "list[Node]" = dataclasses.field(default_factory=list)  # noqa: UP037  # As some do.
    parent: "Node | None" = None  # noqa: UP037  # As some do.


Item = TypeVar("Item")


@dataclasses.dataclass
class Box(Generic[Item]):
    items: list[Item]


class Model(pydantic.BaseModel):
    name: str
    size: int = pydantic.Field(1, gt=0, alias="howLarge")
    color: Color = Color.RED
    data: bytes = b""
    site: pydantic.HttpUrl | None = None
    inner: Inner | None = None


UserId = NewType("UserId", int)
HALF = Fraction(1, 2)
ZONES = st.none() | st.integers(-14 * 60, 14 * 60).map(
    lambda minutes: timezone(timedelta(minutes=minutes))
)
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False)),
    (bool, st.booleans()),
    (str, st.text()),
    (datetime, st.datetimes(timezones=ZONES)),
    (date, st.dates()),
    (timedelta, st.timedeltas(min_value=timedelta(days=-(10**6)), max_value=timedelta(days=10**6))),
    (Optional[int], st.none() | st.integers()),
    (Inner, st.builds(Inner, st.integers(), st.lists(st.text()))),
    (
        Outer,
        st.builds(
            Outer,
            st.builds(Inner, st.integers(), st.just([])),
            st.floats(allow_nan=False),
            st.none() | st.datetimes(),
        ),
    ),
    (bytes, st.binary()),
    (Path, st.text("ab/.", min_size=1).map(Path)),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False)),
    (Color, st.sampled_from(Color)),
    (Literal["a", 1, True, Color.BLUE], st.sampled_from(["a", 1, True, Color.BLUE])),
    (Pair, st.builds(Pair, st.integers(), st.text())),
    (Options, st.fixed_dictionaries({"depth": st.integers()}, optional={"note": st.text()})),
    (
        Node,
        st.recursive(
            st.builds(Node, st.integers()),
            lambda nodes: st.builds(Node, st.integers(), st.lists(nodes), nodes),
            max_leaves=4,
        ),
    ),
    (Box[date], st.builds(Box, st.lists(st.dates()))),
    (
        Model,
        st.builds(
            Model,
            name=st.text(),
            howLarge=st.integers(1),
            color=st.sampled_from(Color),
            data=st.binary(),
            site=st.just("http://a/"),
        ),
    ),
    (UserId, st.integers()),
    (
        Any,
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.dates(),
            lambda each: st.lists(each) | st.tuples(each),
        ),
    ),
    (Fraction, st.fractions()),
    (int | float, st.integers() | st.floats(allow_nan=False)),
    (
        date | datetime | str | None,
        st.dates()
        | st.datetimes()
        | st.text()
        | st.datetimes().map(datetime.isoformat)
        | st.none(),
    ),
    (
        list[int] | list[float] | str,
        st.lists(st.integers()) | st.lists(st.floats(allow_nan=False)) | st.text(),
    ),
    (
        dict[str, int] | Inner | int,
        st.fixed_dictionaries({"$member": st.integers(), "$value": st.integers()})
        | st.builds(Inner, st.integers()),
    ),
]


def typed_values() -> st.SearchStrategy[tuple[Any, Any]]:
    """Draw annotations with values of theirs, nested."""

    def nest(annotation: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
        return st.one_of(
            st.tuples(st.just(annotation), values),
            st.tuples(st.just(list[annotation]), st.lists(values, max_size=4)),
            st.tuples(
                st.just(dict[str, annotation]), st.dictionaries(st.text(), values, max_size=4)
            ),
            st.tuples(
                st.just(dict[int, list[annotation]]),
                st.dictionaries(st.integers(), st.lists(values, max_size=3), max_size=3),
            ),
            st.tuples(st.just(tuple[annotation, ...]), st.lists(values, max_size=3).map(tuple)),
            st.tuples(st.just(tuple[annotation, str]), st.tuples(values, st.text())),
            st.tuples(st.just(Optional[annotation]), st.none() | values),
            st.tuples(
                st.just(list[list[annotation]]), st.lists(st.lists(values, max_size=2), max_size=3)
            ),
        )

    return st.one_of([nest(annotation, values) for annotation, values in LEAVES])


@given(typed_values())
def test_a_value_comes_back_from_the_wire(typed: tuple[Any, Any]) -> None:
    """`load` is the inverse of `dump`, and the wire is JSON that its type accepts.

    The type may have come from its document.
    """
    annotation, value = typed
    type = type_of(annotation)
    wire = type.dump(value)
    assert json.loads(json.dumps(wire, allow_nan=False)) == wire
    assert same_object(type.load(wire), value)
    # Which only a task's own process makes; from outside it is refused.
    if "$pickle" in json.dumps(wire):
        with pytest.raises(Mismatch):
            type.check(wire)
    else:
        other = from_document(json.loads(json.dumps(type.document(), sort_keys=True)))
        assert (str(other), other.document()) == (str(type), type.document())
        assert json.dumps(other.check(wire)) == json.dumps(wire) == json.dumps(type.check(wire))
        if isinstance(wire, list | dict) and "$member" not in wire:
            assert json.dumps(other.parse(json.dumps(wire))) == json.dumps(wire)


def same_object(one: Any, other: Any) -> bool:
    """Whether two values are equal, and of the same classes."""
    if type(one) is not type(other) or one != other:
        return False
    if isinstance(one, list | tuple):
        return all(map(same_object, one, other))
    return not isinstance(one, dict) or all(
        same_object(item, other[name]) for name, item in one.items()
    )


@given(st.sampled_from([set, frozenset]), st.sets(st.integers() | st.text()))
def test_equal_sets_have_one_wire(cls: Any, value: set[Any]) -> None:
    """Equal sets have one wire, in whatever order they were made; the items keep their types."""
    type = type_of(cls[int | str])
    wire = type.dump(cls(value))
    assert wire == type.dump(cls(sorted(value, key=repr)))
    assert type.load(wire) == value and type.load(type.check([*wire, *wire])) == value


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        (list[list[int]], [[[1], [2]], [[1, 2]], [[1, 2], []]]),
        (int | str, [1, "1"]),
        (float | int | Decimal | timedelta, [1, 1.0, Decimal(1), timedelta(seconds=1)]),
        (date | str, [date(2026, 1, 1), "2026-01-01"]),
        (bytes | str, [b"a", "base64:YQ=="]),
        (dict[int | str, int], [{1: 1}, {"1": 1}]),
        (dict[tuple[int, int], str], [{(1, 2): "a"}, {(2, 1): "a"}]),
        (dict[bytes, int], [{b"": 1}, {b"a": 1}]),
        (Any, [{"1": 1}, {1: 1}, [1], (1,), True, 1, 1.0, "1", None]),
        (Inner | dict[str, Any], [Inner(1), {"x": 1, "tags": []}]),
        (Literal[1, "1", True], [1, "1", True]),
    ],
)
def test_different_values_have_different_wires(annotation: Any, values: list[Any]) -> None:
    """Different values have different wires, and each is loaded as it was."""
    type = type_of(annotation)
    wires = [json.dumps(type.dump(value)) for value in values]
    assert len(set(wires)) == len(values)
    assert all(map(same_object, [type.load(json.loads(wire)) for wire in wires], values))


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "1_000", 1000),
        (float, "1e3", 1000.0),
        (bool, "yes", True),
        (bool, "0", False),
        (str, "", ""),
        (Optional[int], "null", None),
        (Optional[int], "7", 7),
        (datetime, "2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        (
            datetime,
            "2026-01-31T12:00:00.25+02:00",
            datetime(2026, 1, 31, 12, 0, 0, 250000, timezone(timedelta(hours=2))),
        ),
        (datetime, "2026-01-31", datetime(2026, 1, 31)),
        (timedelta, "P1DT2H", timedelta(days=1, hours=2)),
        (timedelta, "1:24", timedelta(minutes=1, seconds=24)),
        (timedelta, "90s", timedelta(seconds=90)),
        (timedelta, "2 days", timedelta(days=2)),
        (timedelta, "1.5", timedelta(seconds=1.5)),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, float], '{"a": 1}', {"a": 1.0}),
        (Inner, '{"x": 1}', Inner(1)),
        (
            Outer,
            '{"inner": {"x": 1, "tags": ["a"]}, "when": "2026-01-31"}',
            Outer(Inner(1, ["a"]), when=datetime(2026, 1, 31)),
        ),
        (bytes, "base64:aGk=", b"hi"),
        (Path, "a/b.json", Path("a/b.json")),
        (UUID, "{12345678123456781234567812345678}", UUID("12345678-1234-5678-1234-567812345678")),
        (Decimal, "0.10", Decimal("0.10")),
        (list[Decimal], "[0.1, 2]", [Decimal("0.1"), Decimal(2)]),
        (list[timedelta], '[90, "1:24"]', [timedelta(seconds=90), timedelta(seconds=84)]),
        (Color, "RED", Color.RED),
        (Color, "red", Color.RED),
        (Color, "CRIMSON", Color.RED),
        (Color, "3", Color.BLUE),
        (list[Color], '["BLUE", 3]', [Color.BLUE, Color.BLUE]),
        (Literal["a b", 1], "a b", "a b"),
        (Literal["a b", 1], "1", 1),
        (set[int], "[1, 1]", {1}),
        (frozenset[str], '["a"]', frozenset("a")),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (tuple[int, ...], "[1, 2]", (1, 2)),
        (Sequence[int], "[1]", [1]),
        (Mapping[str, int], '{"a": 1}', {"a": 1}),
        (dict[date, int], '{"2026-01-31": 1}', {date(2026, 1, 31): 1}),
        (Pair, '{"left": 1}', Pair(1)),
        (Options, '{"depth": 1}', {"depth": 1}),
        (Node, '{"value": 1, "children": [{"value": 2}]}', Node(1, [Node(2)])),
        (Box[int], '{"items": [1]}', Box([1])),
        (
            Model,
            '{"name": "n", "size": 2, "color": "BLUE"}',
            Model(name="n", howLarge=2, color=Color.BLUE),
        ),
        (int | str, "7", 7),
        (str | int, "7", "7"),
        (int | bool | list[str], "yes", True),
        (Any, '{"a": [1]}', {"a": [1]}),
        (Any, "plain", "plain"),
        (Fraction, "tests.values.test_converter:HALF", Fraction(1, 2)),
    ],
)
def test_text_is_read_as_people_write_it(annotation: Any, text: str, value: Any) -> None:
    """Strings on a command line are parsed as people write them."""
    type = type_of(annotation)
    assert type.load(type.parse(text)) == value


@pytest.mark.parametrize(
    ("annotation", "text", "where"),
    [
        (int, "1.5", ""),
        (int, "", ""),
        (bool, "maybe", ""),
        (timedelta, "P1Y", ""),
        (timedelta, "soon", ""),
        (datetime, "yesterday", ""),
        (list[int], "[1, true]", "[1]"),
        (list[int], "{", ""),
        (dict[int, str], '{"a": "b"}', " key 'a'"),
        (Inner, '{"x": "a"}', ".x"),
        (Inner, "{}", ".x"),
        (Inner, '{"x": 1, "y": 2}', ".y"),
        (Outer, '{"inner": {"x": 1, "tags": [1]}}', ".inner.tags[0]"),
        (Optional[int], "a", ""),
        (int | date, "a", ""),
        (bytes, "hi", ""),
        (bytes, "base64:?", ""),
        (UUID, "1", ""),
        (Decimal, "a", ""),
        (Color, "green", ""),
        (Literal["a", "b"], "c", ""),
        (set[int], "[[1]]", "[0]"),
        (tuple[int, str], "[1]", ""),
        (tuple[int, str], "[1, 2]", "[1]"),
        (dict[int, int], '{"1": 1, "01": 1}', ""),
        (dict[tuple[int, int], int], '{"a": 1}', ""),
        (dict[bytes, int], '{"@/dev/null": 1}', ""),
        (list[bytes], '["@/dev/null"]', "[0]"),
        (Pair, "{}", ".left"),
        (Options, '{"deep": 1}', ".deep"),
        (Node, '{"value": 1, "children": [{}]}', ".children[0].value"),
        (Box[int], '{"items": ["a"]}', ".items[0]"),
        (Model, '{"name": "n", "color": "green"}', ".color"),
        (Inner | list[int], '{"x": "a"}', ""),
        (Any, '{"$pickle": ""}', ""),
        (Fraction, "1/2", ""),
        (Fraction, '{"$pickle": "gAVLAS4="}', ""),
        (list[int], "[" * 100_000, ""),
    ],
)
def test_a_refusal_says_where_and_what_was_expected(annotation: Any, text: str, where: str) -> None:
    """A refusal has parameter, place, type, value, and an example that works."""
    parameter = Parameter("value", type_of(annotation))
    with pytest.raises(Mismatch) as mismatch:
        parameter.type.parse(text)
    assert mismatch.value.where == where
    with pytest.raises(InputError) as refused:
        parameter.parse([text])
    assert "value" in refused.value.what
    assert refused.value.hint.startswith("For example: --value ")
    parameter.parse([shlex.split(refused.value.hint)[-1]])


def test_fields_that_are_left_out_come_from_the_default_and_then_from_the_class() -> None:
    """A partial dataclass is completed by the default; a dict replaces a dict."""

    def task(a: Outer = Outer(Inner(7, ["t"]), 0.25), b: dict[str, int] = {"k": 1}) -> None:  # noqa: B006  # Never changed.
        """Takes two."""

    interface = interface_of(task)
    wire = interface.check_inputs({"a": {"inner": {"tags": []}}, "b": {"l": 2}})
    assert interface.load_inputs(wire) == {"a": Outer(Inner(7, []), 0.25), "b": {"l": 2}}


def test_outputs_have_the_names_of_a_named_tuple() -> None:
    """Outputs are named by the fields of a named tuple, else o0, o1; None has none."""

    class Pair(NamedTuple):
        left: int
        right: str

    def pair() -> Pair: ...  # type: ignore[empty-body]  # Never called.
    def two() -> tuple[int, str]: ...  # type: ignore[empty-body]  # Never called.
    def none() -> None: ...

    pair.__annotations__["return"] = Pair
    assert interface_of(pair).dump_outputs(Pair(1, "a")) == {"left": 1, "right": "a"}
    assert interface_of(two).dump_outputs((1, "a")) == {"o0": 1, "o1": "a"}
    assert interface_of(none).dump_outputs(None) == {}
    with pytest.raises(Mismatch):
        interface_of(two).dump_outputs((1, 2))


def test_an_interface_survives_its_document() -> None:
    """An interface survives its document, which is all that the command line knows."""

    def task(a: int, b: Outer = Outer(Inner(1)), c: Any = object()) -> str:
        """Do it.

        Args:
            a: The first.
        """
        return ""

    interface = interface_of(task, docs=True)
    document = json.loads(json.dumps(interface.document()))
    assert Interface.from_document(document).document() == document
    assert document["doc"] == "Do it."
    assert [entry["doc"] for entry in document["inputs"]] == ["The first.", "", ""]
