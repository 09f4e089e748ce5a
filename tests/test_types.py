"""The converter: text, JSON and objects to wire and back."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, NamedTuple, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_build.errors import InputError
from flyte_build.interface import Interface, Parameter, interface_of, type_of
from flyte_build.types import Mismatch, from_document


@dataclasses.dataclass
class Inner:
    x: int
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Outer:
    inner: Inner
    ratio: float = 0.5
    when: datetime | None = None


ZONES = st.none() | st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
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
    (Outer, st.builds(Outer, st.builds(Inner, st.integers(), st.just([])), st.floats(allow_nan=False), st.none() | st.datetimes())),
]


def typed_values() -> st.SearchStrategy[tuple[Any, Any]]:
    """Annotations with values of theirs, nested."""

    def nest(annotation: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
        return st.one_of(
            st.tuples(st.just(annotation), values),
            st.tuples(st.just(list[annotation]), st.lists(values, max_size=4)),
            st.tuples(st.just(dict[str, annotation]), st.dictionaries(st.text(), values, max_size=4)),
            st.tuples(st.just(dict[int, list[annotation]]), st.dictionaries(st.integers(), st.lists(values, max_size=3), max_size=3)),
        )

    return st.one_of([nest(annotation, values) for annotation, values in LEAVES])


@given(typed_values())
def test_a_value_comes_back_from_the_wire(typed: tuple[Any, Any]) -> None:
    """dump and load are inverse; wire is JSON, survives it, and checks as what it is, also by a type that came by document."""
    annotation, value = typed
    type = type_of(annotation)
    wire = type.dump(value)
    assert json.loads(json.dumps(wire, allow_nan=False)) == wire
    assert type.load(wire) == value
    assert from_document(json.loads(json.dumps(type.document()))).check(wire) == wire


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
        (datetime, "2026-01-31T12:00:00.25+02:00", datetime(2026, 1, 31, 12, 0, 0, 250000, timezone(timedelta(hours=2)))),
        (datetime, "2026-01-31", datetime(2026, 1, 31)),
        (timedelta, "P1DT2H", timedelta(days=1, hours=2)),
        (timedelta, "1:24", timedelta(minutes=1, seconds=24)),
        (timedelta, "90s", timedelta(seconds=90)),
        (timedelta, "2 days", timedelta(days=2)),
        (timedelta, "1.5", timedelta(seconds=1.5)),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, float], '{"a": 1}', {"a": 1.0}),
        (Inner, '{"x": 1}', Inner(1)),
        (Outer, '{"inner": {"x": 1, "tags": ["a"]}, "when": "2026-01-31"}', Outer(Inner(1, ["a"]), when=datetime(2026, 1, 31))),
    ],
)
def test_text_is_read_as_people_write_it(annotation: Any, text: str, value: Any) -> None:
    """What stands on a command line."""
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
    ],
)
def test_a_refusal_says_where_and_what_was_expected(annotation: Any, text: str, where: str) -> None:
    """Parameter, place, type, value, and an example that works."""
    parameter = Parameter("value", type_of(annotation))
    with pytest.raises(Mismatch) as mismatch:
        parameter.type.parse(text)
    assert mismatch.value.where == where
    with pytest.raises(InputError) as refused:
        parameter.parse(text)
    assert "value" in refused.value.what
    assert refused.value.hint.startswith("For example: --value ")
    parameter.parse(refused.value.hint.removeprefix("For example: --value ").strip("'"))


def test_fields_that_are_left_out_come_from_the_default_and_then_from_the_class() -> None:
    """A partial dataclass is completed; a dict replaces a dict."""

    def task(a: Outer = Outer(Inner(7, ["t"]), 0.25), b: dict[str, int] = {"k": 1}) -> None:  # noqa: B006  # Never changed.
        """Takes two."""

    interface = interface_of(task)
    wire = interface.check_inputs({"a": {"inner": {"tags": []}}, "b": {"l": 2}})
    assert interface.load_inputs(wire) == {"a": Outer(Inner(7, []), 0.25), "b": {"l": 2}}


def test_outputs_have_the_names_of_a_named_tuple() -> None:
    """Else o0, o1; None gives none."""

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
    """The command line knows it by document alone."""

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
