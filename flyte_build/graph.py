"""The generic graph: nodes with keys, resolved from memory or made. It knows no product and does no I/O of its own.

A node's inputs hold the artifacts' digests of the nodes that it needs, never their keys: when something is made again
and comes out the same, what depends on it stays cached ("early cutoff": Mokhov, Mitchell, Peyton Jones, "Build Systems
à la Carte", 2018). A node whose inputs are known only after it was made (a "depfile") overrides `look_up`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record

from .explain import difference

if TYPE_CHECKING:
    from concurrent.futures import Future

FIRST_TIME = "first time"


class Memory(Protocol):
    """Where records are remembered."""

    def find(self, key: Key) -> Record | None:
        """The record of `key`, if there is one."""

    def last(self, label: str) -> Record | None:
        """The record of the last resolve under `label`."""

    def add(self, record: Record) -> None:
        """Remember a record."""

    def set_last(self, label: str, key: Key) -> None:
        """Remember what the last resolve under `label` came to."""


class Holder(Protocol):
    """Somebody who has what a key produced."""

    @property
    def place(self) -> str:
        """Where it is, for people."""


class Elsewhere(Protocol):
    """What other machines have made. Nothing that goes wrong there is raised: it is a miss then."""

    def get_ready(self) -> None:
        """Load what looking there takes, while something else has to be waited for."""

    def find(self, key: Key) -> Holder | None:
        """Who has what `key` produced; nothing is fetched."""

    def obtain(self, key: Key, accept: Callable[[Digest], tuple[Digest, ...]], whole: bool = True) -> tuple[Record, str] | None:
        """Fetch what `key` produced, if anyone has it: its record, which is in the memory then, and the place where it was.

        Unless `whole`, its layers stay there.
        `accept` is given the artifact, and gives the digests that must stay; it raises a `FlyteError` if that is not what it should be.
        """


class Found:
    """What looking a node up came to: its inputs, its record or why there is none, and the seconds that it took."""

    def __init__(self, inputs: Mapping[str, Value], record: Record | None, why: str = "") -> None:
        self.inputs, self.record, self.why = inputs, record, why
        self.seconds = 0.0


class Made:
    """What making a node came to: its artifact, the digests that it needs to stay, and its inputs and reason if only now known.

    `seconds` is what it took, where something else was done in the same time.
    """

    def __init__(
        self,
        artifact: Digest,
        refs: tuple[Digest, ...],
        inputs: Mapping[str, Value] | None = None,
        why: str = "",
        seconds: float | None = None,
    ) -> None:
        self.artifact, self.refs, self.inputs, self.why, self.seconds = artifact, refs, inputs, why, seconds


LOCAL = "local"


class Outcome:
    """How a node was resolved: `state` is `cached`, `made` or `missing`; `seconds` are its own.

    `place` is where a cached one was found: `local`, or the name of a repository.
    """

    def __init__(
        self,
        node: "Node",
        state: str,
        record: Record | None,
        key: Key | None,
        why: str,
        seconds: float,
        children: "list[Outcome]",
        place: str = LOCAL,
    ) -> None:
        self.node, self.state, self.record, self.key, self.why = node, state, record, key, why
        self.seconds, self.children, self.place = seconds, children, place

    @property
    def fetched(self) -> bool:
        """Whether another machine made it."""
        return self.place != LOCAL

    @property
    def artifact(self) -> Digest | None:
        """The artifact's digest, unless it is missing."""
        return self.record.artifact if self.record else None


Outcomes = Mapping["Node", Outcome]


class Node(ABC):
    """One thing that can be made. Subclasses give `inputs` and `make`, and may give better `usable` and `explain`."""

    kind: str
    format = 1
    recorded = True  # Whether a record may be written; what cannot be relied on is made each time.
    shared = False  # Whether what it makes is good on other machines: its artifact is an OCI manifest then.
    whole = True  # Whether all of it is fetched where another machine has made it; else its layers stay there.
    ahead = 0.0  # Seconds that went into it before it was looked up.

    def __init__(self, name: str, label: str, needs: "tuple[Node, ...]" = ()) -> None:
        self.name, self.label, self.needs = name, label, needs

    @abstractmethod
    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """What decides the artifact; all of `needs` are resolved."""

    @abstractmethod
    def make(self, outcomes: Outcomes, resolve: "Resolve") -> Made:
        """Make the artifact; called from any thread. `resolve` is for nodes that are known only now."""

    def stop(self) -> None:  # noqa: B027  # Most nodes do not take long.
        """End `make`, which goes on in another thread, as soon as that can be: the command is interrupted."""

    def usable(self, record: Record) -> bool:
        """Whether what a record refers to is still there."""
        return True

    def accept(self, artifact: Digest, inputs: Mapping[str, Value]) -> tuple[Digest, ...]:
        """What must stay for an artifact that another machine made; raises a `FlyteError` if it is not what `inputs` ask for."""
        raise NotImplementedError

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """What changed since the last resolve."""
        return difference(last.inputs, inputs)

    def look_up(self, memory: Memory, outcomes: Outcomes) -> Found:
        """The record for the inputs as they are now, or why there is none."""
        inputs = self.inputs(outcomes)
        record = memory.find(key(self.kind, self.format, inputs))
        if record and self.usable(record):
            return Found(inputs, record)
        if record:
            return Found(inputs, None, "what was made is not in the store any more")
        last = memory.last(self.label)
        return Found(inputs, None, self.explain(inputs, last) if last else FIRST_TIME)


Resolve = Callable[[Iterable[Node]], Outcomes]


class Resolver:
    """Resolves nodes against a memory, and what is in `elsewhere`; what is in neither is made.

    With `remake` no record is used; with `dry` nothing is made that costs (a node is `missing` then, and so is what needs
    it) and nothing is remembered. `watch` is told each outcome as it comes, `begun` each node that is about to be made.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        remake: bool = False,
        dry: bool = False,
        jobs: int = 2,
        elsewhere: Elsewhere | None = None,
        watch: Callable[[Outcome], None] = lambda outcome: None,
        begun: Callable[[Node, str], None] = lambda node, why: None,
    ) -> None:
        self._memory, self._remake, self._dry, self._jobs = memory, remake, dry, jobs
        self._elsewhere = None if remake else elsewhere
        self._watch, self._begun = watch, begun
        self._children: dict[Node, _Children] = {}
        self.outcomes: dict[Node, Outcome] = {}

    def resolve(self, goals: Iterable[Node]) -> Outcomes:
        """Resolve `goals` and all that they need; independent nodes at the same time. An error of a node is raised."""
        from graphlib import TopologicalSorter

        sorter: TopologicalSorter[Node] = TopologicalSorter()
        waiting = [node for node in goals if node not in self.outcomes]
        while waiting:
            node = waiting.pop()
            needs = [need for need in node.needs if need not in self.outcomes]
            sorter.add(node, *needs)
            waiting += needs
        sorter.prepare()
        making: dict[Future[tuple[Made | _Taken, float]], tuple[Node, Found]] = {}
        pool = None
        try:
            while sorter.is_active():
                missed = [miss for node in sorter.get_ready() if (miss := self._settle(node, sorter.done))]
                if len(missed) == 1 and not making:
                    node, found = missed[0]
                    self._finish(node, found, *self._make(node, found))
                    sorter.done(node)
                    continue
                if missed and pool is None:
                    from concurrent.futures import ThreadPoolExecutor

                    pool = ThreadPoolExecutor(self._jobs)
                for node, found in missed:
                    assert pool is not None
                    making[pool.submit(self._make, node, found)] = (node, found)
                if making:
                    from concurrent.futures import FIRST_COMPLETED, wait

                    for future in wait(making, return_when=FIRST_COMPLETED).done:
                        node, found = making.pop(future)
                        self._finish(node, found, *future.result())
                        sorter.done(node)
        except BaseException:
            for node, _ in making.values():
                node.stop()
            raise
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        return self.outcomes

    def _make(self, node: Node, found: Found) -> "tuple[Made | _Taken, float]":
        """Take a node from elsewhere, or make it; and say how long that took, apart from what it resolved on the way."""
        began = time.perf_counter()
        if node.shared and self._elsewhere:
            wanted = key(node.kind, node.format, found.inputs)
            if taken := self._elsewhere.obtain(wanted, lambda artifact: node.accept(artifact, found.inputs), node.whole):
                return _Taken(*taken), time.perf_counter() - began
        children = self._children[node] = _Children()
        made = node.make(self.outcomes, self._nested(children))
        return made, time.perf_counter() - began - children.seconds if made.seconds is None else made.seconds

    def _nested(self, children: "_Children") -> "Resolve":
        def resolve(goals: Iterable[Node]) -> Outcomes:
            began = time.perf_counter()
            outcomes = Resolver(self._memory, remake=self._remake, jobs=self._jobs).resolve(goals)
            children.outcomes += outcomes.values()
            children.seconds += time.perf_counter() - began
            return outcomes

        return resolve

    def _settle(self, node: Node, done: Callable[[Node], None]) -> tuple[Node, Found] | None:
        """Settle a node without making it; gives back what must be made."""
        began = time.perf_counter() - node.ahead
        if any(self.outcomes[need].record is None for need in node.needs):
            needs = ", ".join(need.kind for need in node.needs if self.outcomes[need].record is None)
            self._add(Outcome(node, "missing", None, None, f"{needs} must be made first", 0.0, []))
            done(node)
            return None
        found = node.look_up(self._memory, self.outcomes)
        if found.record and not self._remake:
            seconds = time.perf_counter() - began
            if not self._dry:
                self._memory.set_last(node.label, found.record.key)
            self._add(Outcome(node, "cached", found.record, found.record.key, "", seconds, []))
            done(node)
            return None
        if found.record:
            found.why = "asked to be made anew"
        if self._dry and not isinstance(node, Cheap):
            wanted = key(node.kind, node.format, found.inputs)
            holder = self._elsewhere.find(wanted) if node.shared and self._elsewhere else None
            if holder:
                self._add(Outcome(node, "cached", None, wanted, found.why, time.perf_counter() - began, [], holder.place))
                done(node)
                return None
            self._add(Outcome(node, "missing", None, wanted, found.why, time.perf_counter() - began, []))
            done(node)
            return None
        self._begun(node, found.why)
        found.seconds = time.perf_counter() - began
        return node, found

    def _finish(self, node: Node, found: Found, made: "Made | _Taken", seconds: float) -> None:
        if isinstance(made, _Taken):
            self._memory.set_last(node.label, made.record.key)
            self._add(Outcome(node, "cached", made.record, made.record.key, found.why, found.seconds + seconds, [], made.place))
            return
        inputs = made.inputs if made.inputs is not None else found.inputs
        record = Record(key(node.kind, node.format, inputs), node.kind, made.artifact, made.refs, {**inputs})
        if not self._dry and node.recorded:
            self._memory.add(record)
            self._memory.set_last(node.label, record.key)
        state, children = "missing" if self._dry else "made", self._children.pop(node).outcomes
        self._add(Outcome(node, state, record, record.key, made.why or found.why, found.seconds + seconds, children))

    def _add(self, outcome: Outcome) -> None:
        self.outcomes[outcome.node] = outcome
        self._watch(outcome)


class _Taken:
    """What was fetched, and from where."""

    def __init__(self, record: Record, place: str) -> None:
        self.record, self.place = record, place


class _Children:
    """What a node resolved while it was made, and the seconds that this took."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.seconds = 0.0


def edges(outcomes: Iterable[Outcome]) -> list[tuple[Node, Node]]:
    """Which of these nodes another one needs: pairs of the needed one and the other."""
    found = []
    for outcome in outcomes:
        node = outcome.node
        found += [(need, node) for need in node.needs]
        for child in outcome.children:
            found += [*((need, child.node) for need in node.needs), (child.node, node)]
    return found


class Cheap(Node):
    """A node that is made even in a dry resolve, since nothing can be said without it."""
