"""Explicit fetching and publishing, of the artifacts of some files or of a whole project."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyte_build.bundler.nodes import BundleNode, accept_bundle
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record
from flyte_build.workspace.workspace import Workspace

from .prepare import FilePlan
from .session import Session

Accept = Callable[[Cache, Digest, Mapping[str, Any]], tuple[Digest, ...]]
_ACCEPT: Mapping[str, tuple[int, Accept]] = {BundleNode.kind: (BundleNode.format, accept_bundle)}
"""For each shared kind: the format of its keys, and the function that checks an artifact."""


@dataclass(frozen=True)
class Item:
    """Outcome of moving one artifact, identified by its `kind` and `key`.

    After a pull, `state` is `here` (it was already), `fetched` or `missing`; after a push, it is
    `there` (it was already), `published`, `unpublished` or `missing`. `name` is the file that needs
    the artifact, and `place` is the repository; both may be "".
    """

    kind: str
    key: str
    name: str
    state: str
    place: str


class Exchange:
    """Exchange of artifacts between this machine and the repositories of a session."""

    def __init__(self, session: Session) -> None:
        self._session, self._cache, self._sharing = session, session.cache, session.sharing

    def pull(self, workspaces: Sequence[Workspace]) -> Iterator[Item]:
        """Fetch the remote artifacts that these files need, building nothing."""
        self._sharing.ask_again()
        for plan in self._plans(workspaces):
            outcome = plan.fetch()
            state = (
                "missing"
                if outcome.state == "missing"
                else "fetched"
                if outcome.fetched
                else "here"
            )
            yield Item(
                outcome.node.kind,
                outcome.key or "",
                plan.workspace.file,
                state,
                outcome.place if state == "fetched" else "",
            )

    def pull_all(self) -> Iterator[Item]:
        """Fetch all artifacts of this project from the repositories that are read."""
        self._sharing.ask_again()
        for offer in self._sharing.shared.catalogue():
            record = offer.record
            known = _ACCEPT.get(record.kind)
            if known is None or record.key != key(record.kind, known[0], record.inputs):
                continue  # Of a kind from a newer version, or not matching its key.
            if self._cache.records.find(record.key):
                yield Item(record.kind, record.key, "", "here", "")
                continue
            with self._cache.preparing():
                taken = self._sharing.fetch(
                    record.key, _accepting(known[1], self._cache, record.inputs)
                )
            yield Item(
                record.kind,
                record.key,
                "",
                "fetched" if taken else "missing",
                offer.place if taken else "",
            )

    def push(self, workspaces: Sequence[Workspace]) -> Iterator[Item]:
        """Publish the local artifacts that these files need, building nothing."""
        self._sharing.ask_again()
        for plan in self._plans(workspaces):
            plan.resolve()
            records = plan.shareable()
            if not records:
                yield Item(BundleNode.kind, "", plan.workspace.file, "missing", "")
            yield from self._publish(records, plan.workspace.file)

    def push_all(self) -> Iterator[Item]:
        """Publish all local artifacts that other machines can use."""
        self._sharing.ask_again()
        yield from self._publish(
            [record for kind in _ACCEPT for record in self._cache.records.of_kind(kind)], ""
        )

    def _plans(self, workspaces: Sequence[Workspace]) -> Iterator[FilePlan]:
        session = Session(self._session.settings, self._session.stores, read_only=True)
        for workspace in workspaces:
            plan = FilePlan(session, workspace)
            with self._cache.preparing():
                plan.discover()
                yield plan

    def _publish(self, records: Sequence[Record], name: str) -> Iterator[Item]:
        place = str(self._session.settings.registries.write or "")
        lacking = self._sharing.lacking(
            {record.key: record.artifact for record in records}, anywhere=False, forget=True
        )
        self._sharing.publish(record for record in records if record.key in lacking)
        published = {record.key for record in self._sharing.finish()}
        for record in records:
            state = (
                "published"
                if record.key in published
                else "unpublished"
                if record.key in lacking
                else "there"
            )
            yield Item(record.kind, record.key, name, state, place)


def _accepting(
    accept: Accept, cache: Cache, inputs: Mapping[str, Any]
) -> Callable[[Digest], tuple[Digest, ...]]:
    return lambda artifact: accept(cache, artifact, inputs)
