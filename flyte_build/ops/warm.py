"""Warming the cache: what files need is made and published, or only looked for, and
nothing is run.
"""

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
    """What came of one file: its nodes, those of them that others cannot have yet (by key), and
    what went wrong, if anything did.
    """

    file: str
    outcomes: Sequence[Outcome]
    unpublished: frozenset[str] = frozenset()
    error: FlyteError | None = None
    holds_tasks: bool = True

    @property
    def complete(self) -> bool:
        """Whether all is there that can be shared."""
        return (
            self.error is None
            and not self.unpublished
            and all(each.state != "missing" for each in self.outcomes if each.node.shared)
        )


def warm(
    projects: Sequence[tuple[Workspace, Settings]], stores: Stores, *, check: bool, jobs: int
) -> Iterator[Warmed]:
    """Prepare and publish what each file needs, by its project's settings, `jobs` at a time; with
    `check` nothing is made or published.

    What comes of each file is given in their order, and counted in `stores`.
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
            # What is owed otherwise is not for several at once.
            sharing.publish(plan.shareable(), alone=True)
            lacking -= {record.key for record in sharing.finish()}
        return Warmed(workspace.file, outcomes, frozenset(lacking))
    except FlyteError as error:
        return Warmed(workspace.file, [], error=error)
    finally:
        stores.close()
