"""The generic graph: nodes with keys, resolved from memory or made. It knows no product and does no
I/O of its own.

A node's inputs hold the artifacts' digests of the nodes that it needs, never their keys: when
something is made again and comes out the same, what depends on it stays cached ("early cutoff":
Mokhov, Mitchell, Peyton Jones, "Build Systems à la Carte", 2018). A node whose inputs are known
only after it was made (a "depfile") overrides `look_up`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record

from .explain import difference

FIRST_TIME = "first time"


class RecordStore(Protocol):
    """Where records are remembered."""

    def find(self, key: Key) -> Record | None:
        """The record of `key`, if there is one."""

    def last(self, label: str) -> Record | None:
        """The record of the last resolve under `label`."""

    def add(self, record: Record) -> None:
        """Remember a record."""

    def set_last(self, label: str, key: Key) -> None:
        """Remember what the last resolve under `label` came to."""


class RemoteRecord(Protocol):
    """Somebody who has what a key produced."""

    @property
    def place(self) -> str:
        """Where it is, for people."""


class RemoteCache(Protocol):
    """What other machines have made. Nothing that goes wrong there is raised: it is a miss then."""

    def connect(self) -> None:
        """Load what looking there takes, while something else has to be waited for."""

    def find(self, key: Key) -> RemoteRecord | None:
        """Who has what `key` produced; nothing is fetched."""

    def fetch(
        self, key: Key, accept: Callable[[Digest], tuple[Digest, ...]], whole: bool = True
    ) -> tuple[Record, str] | None:
        """Fetch what `key` produced, if anyone has it: its record, which is in the memory then, and
        the place where it was.

        Unless `whole`, its layers stay there. `accept` is given the artifact, and gives the digests
        that must stay; it raises a `FlyteError` if that is not what it should be.
        """


class Lookup:
    """What looking a node up came to: its inputs, its record or why there is none, and the seconds
    that it took.
    """

    def __init__(self, inputs: Mapping[str, Value], record: Record | None, why: str = "") -> None:
        self.inputs, self.record, self.why = inputs, record, why
        self.seconds = 0.0


class Made:
    """What making a node came to: its artifact, the digests that it needs to stay, and its inputs
    and reason if only now known.

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
        self.artifact, self.refs, self.inputs, self.why, self.seconds = (
            artifact,
            refs,
            inputs,
            why,
            seconds,
        )


LOCAL = "local"


@dataclass(eq=False)
class Outcome:
    """How a node was resolved: `state` is `cached`, `made` or `missing`; `seconds` include those
    of its children.

    `children` are what was resolved while it was made; `place` is where a cached one was found:
    `local`, or the name of a repository.
    """

    node: Node
    state: str
    record: Record | None
    key: Key | None
    why: str = ""
    seconds: float = 0.0
    children: list[Outcome] = field(default_factory=list)
    place: str = LOCAL

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
    """One thing that can be made. Subclasses give `inputs` and `make`, and may give better `usable`
    and `explain`.
    """

    kind: str
    format = 1
    recorded = True  # Whether a record may be written; what cannot be relied on is made each time.
    # Whether what it makes is good on other machines: its artifact is an OCI manifest then.
    shared = False
    # Whether all of it is fetched where another machine has made it; else its layers stay there.
    whole = True
    ahead = 0.0  # Seconds that went into it before it was looked up.

    def __init__(self, name: str, label: str, needs: tuple[Node, ...] = ()) -> None:
        self.name, self.label, self.needs = name, label, needs

    @abstractmethod
    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """What decides the artifact; all of `needs` are resolved."""

    @abstractmethod
    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Make the artifact; called from any thread. `resolve` is for nodes that are known only
        now.
        """

    def stop(self) -> None:  # noqa: B027  # Most nodes do not take long.
        """End `make`, which goes on in another thread, as soon as that can be: the command is
        interrupted.
        """

    def usable(self, record: Record) -> bool:
        """Whether what a record refers to is still there."""
        return True

    def accept(self, artifact: Digest, inputs: Mapping[str, Value]) -> tuple[Digest, ...]:
        """What must stay for an artifact that another machine made; raises a `FlyteError` if it is
        not what `inputs` ask for.
        """
        raise NotImplementedError

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """What changed since the last resolve."""
        return difference(last.inputs, inputs)

    def look_up(self, memory: RecordStore, outcomes: Outcomes) -> Lookup:
        """The record for the inputs as they are now, or why there is none."""
        inputs = self.inputs(outcomes)
        record = memory.find(key(self.kind, self.format, inputs))
        if record and self.usable(record):
            return Lookup(inputs, record)
        if record:
            return Lookup(inputs, None, "what was made is not in the store any more")
        last = memory.last(self.label)
        return Lookup(inputs, None, self.explain(inputs, last) if last else FIRST_TIME)


Resolve = Callable[[Iterable[Node]], Outcomes]


class Cheap(Node):
    """A node that is made even in a read-only resolve, since nothing can be said without it."""
