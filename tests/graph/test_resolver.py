"""The resolver, with nodes of strings and records in memory: which nodes are built, and why."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record
from flyte_build.errors import FlyteError
from flyte_build.graph.node import (
    FIRST_TIME,
    Cheap,
    Made,
    Node,
    Outcome,
    Outcomes,
    Resolve,
)
from flyte_build.graph.resolver import Resolver, edges
from tests.support.nodes import Log, MemoryRecords, Text, digest_of

pytestmark = pytest.mark.quick

Sources = Mapping[str, str]


def chain(sources: Sources) -> list[Node]:
    """Return three nodes, each of which needs the one before."""
    first = Text("first", sources.get("first", "1"))
    second = Text("second", sources.get("second", "2"), (first,))
    return [Text("third", sources.get("third", "3"), (second,))]


def diamond(sources: Sources) -> list[Node]:
    """Return two nodes that need one, and one that needs both."""
    base = Text("base", sources.get("base", "0"))
    left = Text("left", sources.get("left", "1"), (base,))
    right = Text("right", sources.get("right", "2"), (base,))
    return [Text("top", sources.get("top", "3"), (left, right))]


def apart(sources: Sources) -> list[Node]:
    """Return two independent nodes."""
    return [Text("one", sources.get("one", "1")), Text("two", sources.get("two", "2"))]


@dataclass(frozen=True)
class Case:
    """A graph that is resolved before and after an edit, and the names of the rebuilt nodes."""

    graph: Callable[[Sources], list[Node]]
    edit: Sources
    made: set[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    state: str = "made"


CASES = {
    "nothing changed": Case(chain, {}, set()),
    "the last of a chain": Case(chain, {"third": "x"}, {"third"}),
    "the middle of a chain": Case(chain, {"second": "x"}, {"second", "third"}),
    "the first of a chain": Case(chain, {"first": "x"}, {"first", "second", "third"}),
    "the base of a diamond": Case(diamond, {"base": "x"}, {"base", "left", "right", "top"}),
    "one side of a diamond": Case(diamond, {"left": "x"}, {"left", "top"}),
    "one of two apart": Case(apart, {"two": "x"}, {"two"}),
    "asked to be made anew": Case(diamond, {}, {"base", "left", "right", "top"}, {"remake": True}),
    "read only": Case(diamond, {"right": "x"}, {"right", "top"}, {"read_only": True}, "missing"),
    "read only, nothing changed": Case(diamond, {}, set(), {"read_only": True}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_an_edit_makes_again(case: Case) -> None:
    """An edit rebuilds exactly the nodes that depend on it; a second resolve builds nothing."""
    memory = MemoryRecords()
    first = Resolver(memory).resolve(case.graph({}))
    assert {outcome.state for outcome in first.values()} == {"made"}
    assert {outcome.why for outcome in first.values()} == {FIRST_TIME}
    known = dict(memory.records)
    outcomes = Resolver(memory, **case.options).resolve(case.graph(case.edit))
    states = {node.name: outcome.state for node, outcome in outcomes.items()}
    assert {name for name, state in states.items() if state == case.state} == case.made
    assert {state for name, state in states.items() if name not in case.made} <= {"cached"}
    if "read_only" in case.options:
        assert memory.records == known
    else:
        again = Resolver(memory).resolve(case.graph(case.edit))
        assert {outcome.state for outcome in again.values()} == {"cached"}


def test_what_comes_out_the_same_leaves_what_depends_on_it_cached() -> None:
    """Early cutoff: if a rebuilt artifact is equal, the nodes that depend on it stay cached."""
    memory = MemoryRecords()
    Resolver(memory).resolve(chain({"first": "text"}))
    outcomes = Resolver(memory).resolve(chain({"first": "TEXT"}))
    states = {node.name: outcome.state for node, outcome in outcomes.items()}
    assert states == {"first": "made", "second": "cached", "third": "cached"}


def test_an_edit_that_is_taken_back_is_cached() -> None:
    memory = MemoryRecords()
    for edit in ({}, {"base": "x"}):
        Resolver(memory).resolve(diamond(edit))
    outcomes = Resolver(memory).resolve(diamond({}))
    assert {outcome.state for outcome in outcomes.values()} == {"cached"}


def test_reasons_name_what_changed() -> None:
    memory = MemoryRecords()
    Resolver(memory).resolve(chain({}))
    outcomes = Resolver(memory).resolve(chain({"first": "x"}))
    whys = {node.name: outcome.why for node, outcome in outcomes.items()}
    assert whys["first"] == "source: 1 -> x" and "needs" in whys["second"]
    outcomes = Resolver(memory, remake=True).resolve(chain({"first": "x"}))
    assert len({outcome.why for outcome in outcomes.values()}) == 1


def test_the_reporter_is_told_of_each_node_once_and_in_order() -> None:
    log = Log()
    Resolver(MemoryRecords(), log, jobs=1).resolve(diamond({}))
    assert sorted(log.started) == ["base", "left", "right", "top"]
    assert log.started[0] == "base" and log.started[-1] == "top"
    assert [name.partition(":")[0] for name in log.resolved] == log.started


class Unusable(Text):
    """A node whose record is unusable: the blobs that it names were deleted."""

    def usable(self, record: Record) -> bool:
        return False


def test_a_record_whose_artifact_is_gone_is_not_used() -> None:
    memory = MemoryRecords()
    Resolver(memory).resolve([Unusable("a")])
    (outcome,) = Resolver(memory).resolve([Unusable("a")]).values()
    assert outcome.state == "made" and "no longer in the store" in outcome.why


class Unrecorded(Text):
    """A node whose artifact cannot be relied on later."""

    recorded = False


def test_what_is_not_recorded_is_made_each_time() -> None:
    memory = MemoryRecords()
    for _ in range(2):
        (outcome,) = Resolver(memory).resolve([Unrecorded("a")]).values()
        assert outcome.state == "made" and memory.records == {} and memory.labels == {}


class CheapText(Text, Cheap):
    """A node that is built even when nothing may be built."""


def test_a_read_only_resolve_makes_what_is_cheap_and_remembers_nothing() -> None:
    memory = MemoryRecords()
    cheap = CheapText("cheap")
    outcomes = Resolver(memory, read_only=True).resolve([Text("top", needs=(cheap,))])
    shown = {node.name: (each.state, each.record is None) for node, each in outcomes.items()}
    assert shown == {"cheap": ("missing", False), "top": ("missing", True)}
    assert memory.records == {} and memory.labels == {}


def test_a_read_only_resolve_does_not_look_beyond_what_is_missing() -> None:
    outcomes = Resolver(MemoryRecords(), read_only=True).resolve(diamond({}))
    whys = {node.name: outcome.why for node, outcome in outcomes.items()}
    assert whys["base"] == FIRST_TIME and "text" in whys["left"] and "text" in whys["top"]
    assert all(outcome.key is None for node, outcome in outcomes.items() if node.name != "base")


class Late(Text):
    """A node whose inputs are known only after its build, during which it resolves others."""

    def __init__(self, children: Iterable[Node]) -> None:
        super().__init__("late")
        self.children = list(children)

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        made = resolve(self.children)
        artifact = digest_of(str([made[child].artifact for child in self.children]))
        return Made(artifact, (artifact,), {"seen": len(self.children)}, "because of what it saw")


def test_a_node_can_resolve_others_and_name_its_inputs_afterwards() -> None:
    memory, child = MemoryRecords(), Text("child")
    late = Late([child])
    outcomes = Resolver(memory).resolve([Text("top", needs=(late,))])
    outcome = outcomes[late]
    assert outcome.key == key("text", 1, {"seen": 1}) and outcome.why == "because of what it saw"
    assert [each.node for each in outcome.children] == [child] and child not in outcomes
    assert (child, late) in edges(outcomes.values())


def test_what_is_needed_twice_is_made_once() -> None:
    log, goals = Log(), diamond({})
    resolver = Resolver(MemoryRecords(), log)
    resolver.resolve(goals)
    assert resolver.resolve([*goals, *goals]) is resolver.outcomes and len(log.started) == 4


def test_a_long_chain_needs_no_stack() -> None:
    node: Node = Text("0")
    for number in range(3_000):
        node = Text(str(number + 1), needs=(node,))
    assert Resolver(MemoryRecords()).resolve([node])[node].state == "made"


class Meeting(Text):
    """A node that is built only while another one is, too."""

    def __init__(self, name: str, barrier: threading.Barrier) -> None:
        super().__init__(name)
        self.barrier = barrier

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        self.barrier.wait(20)
        return super().make(outcomes, resolve)


def test_independent_nodes_are_made_at_the_same_time() -> None:
    barrier = threading.Barrier(2)
    Resolver(MemoryRecords()).resolve([Meeting("one", barrier), Meeting("two", barrier)])


class Failing(Text):
    """A node that cannot be built; it fails once `stuck` is being built."""

    def __init__(self, name: str, stuck: Stuck | None = None) -> None:
        super().__init__(name)
        self.stuck = stuck

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        if self.stuck:
            assert self.stuck.begun.wait(20)
        raise FlyteError(f"{self.name} failed")


class Stuck(Text):
    """A node whose build lasts until it is stopped."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.begun, self.ended = threading.Event(), threading.Event()

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        self.begun.set()
        assert self.ended.wait(20)
        return super().make(outcomes, resolve)

    def stop(self) -> None:
        super().stop()
        self.ended.set()


def test_an_error_stops_what_is_being_made_and_keeps_what_was_made() -> None:
    memory, stuck = MemoryRecords(), Stuck("stuck")
    good = Text("good")
    bad = Failing("bad", stuck)
    bad.needs = (good,)
    with pytest.raises(FlyteError, match="bad failed"):
        Resolver(memory).resolve([stuck, Text("top", needs=(bad,))])
    assert stuck.stopped
    assert [record.artifact for record in memory.records.values()] == [digest_of("good  ()")]


@dataclass
class Remote:
    """A remote cache that has the artifacts of some keys, and records its requests."""

    memory: MemoryRecords
    artifacts: dict[Key, Digest]
    asked: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return "registry.test/cache"

    def connect(self) -> None:
        self.asked.append("connect")

    def find(self, key: Key) -> Remote | None:
        self.asked.append("find")
        return self if key in self.artifacts else None

    def fetch(
        self, key: Key, accept: Callable[[Digest], tuple[Digest, ...]], whole: bool = True
    ) -> tuple[Record, str] | None:
        self.asked.append("fetch")
        if key not in self.artifacts:
            return None
        artifact = self.artifacts[key]
        try:
            refs = accept(artifact)
        except FlyteError:
            return None
        record = Record(key, "text", artifact, refs, {})
        self.memory.add(record)
        return record, self.place


class Shared(Text):
    """A node that other machines may have built; `trusted` is whether it accepts their artifact."""

    shared = True
    trusted = True

    def accept(self, artifact: Digest, inputs: Mapping[str, Value]) -> tuple[Digest, ...]:
        if not self.trusted:
            raise FlyteError("Not what was asked for")
        return (artifact,)


def remote_of(memory: MemoryRecords, *nodes: Text) -> Remote:
    """Return a remote cache with the artifacts of these nodes, which need no others."""
    return Remote(
        memory,
        {
            key(node.kind, 1, node.inputs({})): node.make({}, lambda goals: {}).artifact
            for node in nodes
        },
    )


def test_what_another_machine_has_made_is_fetched() -> None:
    memory, node = MemoryRecords(), Shared("a", "1")
    remote = remote_of(memory, node)
    (outcome,) = Resolver(memory, remote=remote).resolve([node]).values()
    assert (outcome.state, outcome.place, outcome.fetched) == ("cached", remote.place, True)
    assert outcome.artifact == digest_of("a 1 ()") and remote.asked == ["fetch"]
    (again,) = Resolver(memory, remote=remote).resolve([Shared("a", "1")]).values()
    assert (again.state, again.fetched) == ("cached", False) and remote.asked == ["fetch"]


def test_a_read_only_resolve_finds_it_and_fetches_nothing() -> None:
    memory, node = MemoryRecords(), Shared("a", "1")
    remote = remote_of(memory, node)
    (outcome,) = Resolver(memory, remote=remote, read_only=True).resolve([node]).values()
    assert (outcome.state, outcome.fetched, outcome.record) == ("cached", True, None)
    assert remote.asked == ["find"] and memory.records == {}


@pytest.mark.parametrize("why", ["not shared", "remake", "not accepted", "not there"])
def test_what_another_machine_has_made_is_not_used(why: str) -> None:
    memory = MemoryRecords()
    node = Text("a", "1") if why == "not shared" else Shared("a", "1")
    if isinstance(node, Shared):
        node.trusted = why != "not accepted"
    remote = remote_of(memory, *([] if why == "not there" else [node]))
    (outcome,) = Resolver(memory, remote=remote, remake=why == "remake").resolve([node]).values()
    assert (outcome.state, outcome.fetched) == ("made", False)
    assert bool(remote.asked) == (why in ("not accepted", "not there"))


graphs = st.integers(1, 8).flatmap(
    lambda count: st.tuples(
        *(st.sets(st.integers(0, max(0, at - 1)), max_size=3) for at in range(count))
    )
)
edits = st.lists(st.tuples(st.integers(0, 7), st.sampled_from("abAB")), max_size=6)


@given(graphs, edits)
def test_any_edits_of_any_graph_give_what_a_clean_build_gives(
    graph: tuple[set[int], ...], edits: list[tuple[int, str]]
) -> None:
    """Any edits of any graph give the artifacts of a clean build.

    A node is cached if and only if its inputs have been met before.
    """
    memory, sources, met = MemoryRecords(), ["a"] * len(graph), set[Key | None]()

    def build() -> list[Node]:
        nodes: list[Node] = []
        for at, needs in enumerate(graph):
            needed = tuple(nodes[need] for need in sorted(needs) if need < at)
            nodes.append(Text(str(at), sources[at], needed))
        return nodes

    def artifacts(outcomes: Mapping[Node, Outcome]) -> dict[str, Digest | None]:
        return {node.name: outcome.artifact for node, outcome in outcomes.items()}

    for at, source in [(0, "a"), *edits]:
        sources[at % len(graph)] = source
        outcomes = Resolver(memory).resolve(build())
        assert artifacts(outcomes) == artifacts(Resolver(MemoryRecords()).resolve(build()))
        assert all((each.state == "cached") == (each.key in met) for each in outcomes.values())
        met |= {outcome.key for outcome in outcomes.values()}
