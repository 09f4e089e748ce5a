"""Warming the cache: build and publish what files need, or only check it, without running tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flyte_build.errors import FlyteError
from flyte_build.graph.node import Outcome
from flyte_build.settings.settings import Settings
from flyte_build.workspace.workspace import Workspace

from .prepare import FilePlan
from .session import Session
from .stores import Stores


@dataclass(frozen=True)
class Warmed:
    """Result of warming one file: the outcomes of its nodes, or an error.

    `unpublished` are the keys that are missing from the repositories.
    """

    file: str
    outcomes: Sequence[Outcome]
    unpublished: frozenset[str] = frozenset()
    error: FlyteError | None = None
    holds_tasks: bool = True

    @property
    def complete(self) -> bool:
        """Whether everything that can be shared is built and published."""
        return (
            self.error is None
            and not self.unpublished
            and all(each.state != "missing" for each in self.outcomes if each.node.shared)
        )


def warm(
    projects: Sequence[tuple[Workspace, Settings]], stores: Stores, *, check: bool, jobs: int
) -> Iterator[Warmed]:
    """Build and publish what each file needs, with its project's settings, `jobs` files at a time.

    With `check`, nothing is built or published. Yields the results in the order of the files, and
    counts the work in `stores`.
    """
    others = [
        Session(settings, stores)
        for settings in {id(settings): settings for _, settings in projects}.values()
    ]
    for rest in others:
        rest.sharing.ask_again()
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda each: _warm(each[0], each[1], stores, check), projects)
    for rest in [] if check else others:
        rest.sharing.publish([])
        rest.sharing.finish()


def _warm(workspace: Workspace, settings: Settings, shared: Stores, check: bool) -> Warmed:
    stores = shared.beside()
    try:
        plan = FilePlan(Session(settings, stores, read_only=check), workspace)
        with stores.cache.preparing():
            if not plan.discover().findings.tasks:
                return Warmed(workspace.file, [], holds_tasks=False)
            plan.resolve(*plan.environments())
        outcomes, sharing = plan.outcomes, plan.session.sharing
        artifacts = {
            each.key: each.artifact
            for each in outcomes
            if each.node.shared and each.key and each.state != "missing"
        }
        lacking = sharing.lacking(artifacts, anywhere=True, forget=not check)
        if not check:
            # Records that earlier commands owe are published once, at the end of `warm`.
            sharing.publish(plan.shareable(), alone=True)
            lacking -= {record.key for record in sharing.finish()}
        return Warmed(workspace.file, outcomes, frozenset(lacking))
    except FlyteError as error:
        return Warmed(workspace.file, [], error=error)
    finally:
        stores.close()
