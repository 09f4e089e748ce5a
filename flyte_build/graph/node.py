"""Nodes of the build graph: each has a key, and is found by it or built.

The graph knows no product and does no I/O of its own. The inputs of a node contain the digests of
its dependencies' artifacts, never their keys: when a dependency is rebuilt with the same artifact,
everything that depends on it stays cached ("early cutoff": Mokhov, Mitchell, Peyton Jones, "Build
Systems à la Carte", 2018). A node whose inputs are known only after it was built (a "depfile")
overrides `look_up`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record

from .explain import difference

FIRST_TIME = "first time"


class RecordStore(Protocol):
    """A store of records."""

    def find(self, key: Key) -> Record | None:
        """Return the record of `key`, if there is one."""

    def last(self, label: str) -> Record | None:
        """Return the record of the last resolve under `label`, if there is one."""

    def add(self, record: Record) -> None:
        """Store a record."""

    def set_last(self, label: str, key: Key) -> None:
        """Remember `key` as the result of the last resolve under `label`."""


class RemoteRecord(Protocol):
    """A record in a remote cache."""

    @property
    def place(self) -> str:
        """Human-readable name of the cache."""


class RemoteCache(Protocol):
    """A cache of artifacts that other machines have built.

    It never raises because of a failing remote: that is a cache miss.
    """

    def connect(self) -> None:
        """Load the libraries for lookups ahead of time, while the command waits for other work."""

    def find(self, key: Key) -> RemoteRecord | None:
        """Find a remote copy of the artifact for `key`, without fetching it."""

    def fetch(
        self, key: Key, accept: Callable[[Digest], tuple[Digest, ...]], whole: bool = True
    ) -> tuple[Record, str] | None:
        """Fetch the artifact for `key`, if there is a remote copy; return its record and its place.

        The record is then in the local store, too. Unless `whole`, the layers are not fetched.
        `accept` gets the artifact, and returns the digests that must be kept for it; it raises a
        `FlyteError` if the artifact does not match the key.
        """


class Lookup:
    """Result of a lookup: the node's inputs, and its record or the reason there is none.

    `seconds` is the duration of the lookup.
    """

    def __init__(self, inputs: Mapping[str, Value], record: Record | None, why: str = "") -> None:
        self.inputs, self.record, self.why = inputs, record, why
        self.seconds = 0.0


class Made:
    """Result of building a node: its artifact, and the digests that must be kept for it.

    `inputs` and `why` are set if they are known only after the build. `seconds` is the duration, if
    the measured time includes other work.
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


class Outcome(NamedTuple):
    """Result of resolving a node: `state` is `cached`, `made` or `missing`.

    `seconds` include those of its `children`: the outcomes of nodes that were resolved while it was
    built. `place` is where a cached one was found: `local`, or the name of a repository.
    """

    node: Node
    state: str
    record: Record | None
    key: Key | None
    why: str = ""
    seconds: float = 0.0
    children: Sequence[Outcome] = ()
    place: str = LOCAL

    @property
    def fetched(self) -> bool:
        """Whether it was fetched from a remote cache."""
        return self.place != LOCAL

    @property
    def artifact(self) -> Digest | None:
        """Digest of the artifact, or None if it is missing."""
        return self.record.artifact if self.record else None


Outcomes = Mapping["Node", Outcome]


class Node(ABC):
    """A unit of work that produces an artifact.

    Subclasses implement `inputs` and `make`, and can improve `usable` and `explain`.
    """

    kind: str
    format = 1
    recorded = True  # Whether its record is stored; if not, it is rebuilt each time.
    # Whether other machines can use its artifact, which must then be an OCI manifest.
    shared = False
    # Whether its layers are fetched from a remote cache, too.
    whole = True
    ahead = 0.0  # Seconds spent on it before its lookup.

    def __init__(self, name: str, label: str, needs: tuple[Node, ...] = ()) -> None:
        self.name, self.label, self.needs = name, label, needs

    @abstractmethod
    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Return everything that determines the artifact; all of `needs` are resolved."""

    @abstractmethod
    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Build the artifact; called from any thread.

        `resolve` resolves further nodes that are known only now.
        """

    def stop(self) -> None:  # noqa: B027  # Most nodes do not take long.
        """Stop `make`, which is running in another thread, because the command was interrupted."""

    def usable(self, record: Record) -> bool:
        """Whether everything that a record refers to still exists."""
        return True

    def accept(self, artifact: Digest, inputs: Mapping[str, Value]) -> tuple[Digest, ...]:
        """Return the digests that must be kept for an artifact that another machine built.

        Raises a `FlyteError` if the artifact does not match `inputs`.
        """
        raise NotImplementedError

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """Return what changed since the last resolve."""
        return difference(last.inputs, inputs)

    def look_up(self, memory: RecordStore, outcomes: Outcomes) -> Lookup:
        """Return the record for the current inputs, or the reason there is none."""
        inputs = self.inputs(outcomes)
        record = memory.find(key(self.kind, self.format, inputs))
        if record and self.usable(record):
            return Lookup(inputs, record)
        if record:
            return Lookup(inputs, None, "the artifact is no longer in the store")
        last = memory.last(self.label)
        return Lookup(inputs, None, self.explain(inputs, last) if last else FIRST_TIME)


Resolve = Callable[[Iterable[Node]], Outcomes]


class Cheap(Node):
    """A node that is built even in a read-only resolve: without it, nothing can be reported."""
