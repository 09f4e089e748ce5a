"""Resolution of nodes: each is found in a cache or built, independent ones in parallel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record

from .node import Cheap, Lookup, Made, Node, Outcome, Outcomes, RecordStore, RemoteCache, Resolve
from .reporter import Reporter

if TYPE_CHECKING:
    from concurrent.futures import Future


class Resolver:
    """Resolves nodes from a record store or a `remote` cache, and builds the others.

    With `remake`, no record is used. With `read_only`, nothing is stored and only `Cheap` nodes are
    built; the others are `missing`, and so is everything that needs them. The reporter is called
    before each build and after each outcome.
    """

    def __init__(
        self,
        memory: RecordStore,
        reporter: Reporter | None = None,
        *,
        remake: bool = False,
        read_only: bool = False,
        jobs: int = 2,
        remote: RemoteCache | None = None,
    ) -> None:
        self._memory, self._reporter, self._remake, self._read_only, self._jobs = (
            memory,
            reporter,
            remake,
            read_only,
            jobs,
        )
        self._remote = None if remake else remote
        self._children: dict[Node, list[Outcome]] = {}
        self.outcomes: dict[Node, Outcome] = {}

    def resolve(self, goals: Iterable[Node]) -> Outcomes:
        """Resolve `goals` and everything they need, in parallel where possible.

        Raises the error of a node that fails.
        """
        from graphlib import TopologicalSorter

        sorter: TopologicalSorter[Node] = TopologicalSorter()
        waiting = [node for node in goals if node not in self.outcomes]
        while waiting:
            node = waiting.pop()
            needs = [need for need in node.needs if need not in self.outcomes]
            sorter.add(node, *needs)
            waiting += needs
        sorter.prepare()
        making: dict[Future[tuple[Made | _Taken, float]], tuple[Node, Lookup]] = {}
        pool = None
        try:
            while sorter.is_active():
                missed = [
                    miss for node in sorter.get_ready() if (miss := self._settle(node, sorter.done))
                ]
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

    def _make(self, node: Node, found: Lookup) -> tuple[Made | _Taken, float]:
        """Fetch or build a node; return the result and its duration, with nested resolves."""
        began = time.perf_counter()
        if node.shared and self._remote:
            wanted = key(node.kind, node.format, found.inputs)
            if taken := self._remote.fetch(
                wanted, lambda artifact: node.accept(artifact, found.inputs), node.whole
            ):
                return _Taken(*taken), time.perf_counter() - began
        children = self._children[node] = []
        made = node.make(self.outcomes, self._nested(children))
        return made, time.perf_counter() - began if made.seconds is None else made.seconds

    def _nested(self, children: list[Outcome]) -> Resolve:
        def resolve(goals: Iterable[Node]) -> Outcomes:
            outcomes = Resolver(self._memory, remake=self._remake, jobs=self._jobs).resolve(goals)
            children.extend(outcomes.values())
            return outcomes

        return resolve

    def _settle(self, node: Node, done: Callable[[Node], None]) -> tuple[Node, Lookup] | None:
        """Resolve a node without building it, or return it with its lookup if it must be built."""
        began = time.perf_counter() - node.ahead
        if any(self.outcomes[need].record is None for need in node.needs):
            needs = ", ".join(
                need.kind for need in node.needs if self.outcomes[need].record is None
            )
            self._add(Outcome(node, "missing", None, None, f"{needs} must be made first"))
            done(node)
            return None
        found = node.look_up(self._memory, self.outcomes)
        if found.record and not self._remake:
            seconds = time.perf_counter() - began
            if not self._read_only:
                self._memory.set_last(node.label, found.record.key)
            self._add(Outcome(node, "cached", found.record, found.record.key, "", seconds))
            done(node)
            return None
        if found.record:
            found.why = "rebuild requested"
        if self._read_only and not isinstance(node, Cheap):
            wanted = key(node.kind, node.format, found.inputs)
            holder = self._remote.find(wanted) if node.shared and self._remote else None
            if holder:
                self._add(
                    Outcome(
                        node,
                        "cached",
                        None,
                        wanted,
                        found.why,
                        time.perf_counter() - began,
                        place=holder.place,
                    )
                )
                done(node)
                return None
            self._add(
                Outcome(node, "missing", None, wanted, found.why, time.perf_counter() - began)
            )
            done(node)
            return None
        if self._reporter:
            self._reporter.node_started(node, found.why)
        found.seconds = time.perf_counter() - began
        return node, found

    def _finish(self, node: Node, found: Lookup, made: Made | _Taken, seconds: float) -> None:
        if isinstance(made, _Taken):
            self._memory.set_last(node.label, made.record.key)
            self._add(
                Outcome(
                    node,
                    "cached",
                    made.record,
                    made.record.key,
                    found.why,
                    found.seconds + seconds,
                    place=made.place,
                )
            )
            return
        inputs = made.inputs if made.inputs is not None else found.inputs
        record = Record(
            key(node.kind, node.format, inputs), node.kind, made.artifact, made.refs, {**inputs}
        )
        if not self._read_only and node.recorded:
            self._memory.add(record)
            self._memory.set_last(node.label, record.key)
        state, children = (
            "missing" if self._read_only else "made",
            self._children.pop(node),
        )
        self._add(
            Outcome(
                node,
                state,
                record,
                record.key,
                made.why or found.why,
                found.seconds + seconds,
                children,
            )
        )

    def _add(self, outcome: Outcome) -> None:
        self.outcomes[outcome.node] = outcome
        if self._reporter:
            self._reporter.node_resolved(outcome)


class _Taken:
    """A fetched record, and the place it came from."""

    def __init__(self, record: Record, place: str) -> None:
        self.record, self.place = record, place


def edges(outcomes: Iterable[Outcome]) -> list[tuple[Node, Node]]:
    """Return the edges among these nodes: pairs of a needed node and one that depends on it."""
    found = []
    for outcome in outcomes:
        node = outcome.node
        found += [(need, node) for need in node.needs]
        for child in outcome.children:
            found += [*((need, child.node) for need in node.needs), (child.node, node)]
    return found
