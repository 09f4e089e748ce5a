"""Nodes of made-up artifacts for the resolver, and a record store in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping

from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import Value
from flyte_build.cas.records import Record
from flyte_build.graph.node import Made, Node, Outcome, Outcomes, Resolve
from flyte_build.graph.reporter import Reporter


class MemoryRecords:
    """Records in memory; inputs come back as JSON, as they do from a disk."""

    def __init__(self) -> None:
        self.records: dict[Key, Record] = {}
        self.labels: dict[str, Key] = {}

    def find(self, key: Key) -> Record | None:
        return self.records.get(key)

    def last(self, label: str) -> Record | None:
        return self.records.get(self.labels[label]) if label in self.labels else None

    def add(self, record: Record) -> None:
        self.records[record.key] = record._replace(inputs=json.loads(json.dumps(record.inputs)))

    def set_last(self, label: str, key: Key) -> None:
        self.labels[label] = key


class Text(Node):
    """A node whose artifact is a string: its `source` in lower case, and what it needs."""

    kind = "text"

    def __init__(self, name: str, source: str = "", needs: tuple[Node, ...] = ()) -> None:
        super().__init__(name, f"text:{name}", needs)
        self.source, self.stopped = source, False

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        return {"name": self.name, "source": self.source, "needs": self._needed(outcomes)}

    def _needed(self, outcomes: Outcomes) -> tuple[Digest | None, ...]:
        return tuple(outcomes[need].artifact for need in self.needs)

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        artifact = digest_of(f"{self.name} {self.source.lower()} {self._needed(outcomes)}")
        return Made(artifact, (artifact,))

    def stop(self) -> None:
        self.stopped = True


class Log(Reporter):
    """A reporter that records the names of nodes that were started and resolved, in order."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.resolved: list[str] = []

    def node_started(self, node: Node, why: str) -> None:
        self.started.append(node.name)

    def node_resolved(self, outcome: Outcome) -> None:
        self.resolved.append(f"{outcome.node.name}: {outcome.state}")


def digest_of(text: str) -> Digest:
    """Return the digest of a string."""
    return Digest.of(text.encode())
