"""Warming the cache: what files need is made and published, or only looked for, and nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from flyte_build.errors import FlyteError
from flyte_build.graph.node import Outcome
from flyte_build.graph.reporter import Listener
from flyte_build.settings.settings import Settings
from flyte_build.workspace.workspace import Project

from .run import Runner
from .session import Stores
from .sharing import Sharing


@dataclass(frozen=True)
class Warmed:
    """What came of one file: its nodes, those of them that others cannot have yet (by key), and what went wrong, if anything did."""

    file: str
    outcomes: Sequence[Outcome]
    unpublished: frozenset[str] = frozenset()
    error: FlyteError | None = None
    holds_tasks: bool = True

    @property
    def complete(self) -> bool:
        """Whether all is there that can be shared."""
        return self.error is None and not self.unpublished and all(each.state != "missing" for each in self.outcomes if each.node.shared)


def warm(projects: Sequence[tuple[Project, Settings]], stores: Stores, listener: Listener, *, check: bool, jobs: int) -> Iterator[Warmed]:
    """Prepare and publish what each file needs, by its project's settings, `jobs` at a time; with `check` nothing is made or published.

    What comes of each file is given in their order, and counted in `stores`.
    """
    others = [
        Sharing(settings.registries, stores.cache, stores.counters, settings.run.project, listener.said)
        for settings in {id(settings): settings for _, settings in projects}.values()
    ]
    for rest in others:
        rest.ask_again()
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(lambda each: _warm(each[0], each[1], stores, listener, check), projects)
    for rest in [] if check else others:
        rest.publish([])
        rest.finish()


def _warm(project: Project, settings: Settings, shared: Stores, listener: Listener, check: bool) -> Warmed:
    stores = Stores(listener, shared.places, shared.counters)  # Each thread has connections of its own.
    try:
        runner = Runner(project, settings, stores, listener, dry=check)
        with stores.cache.preparing():
            tasks = runner.preparation.discover().document["tasks"]
            if not tasks:
                return Warmed(project.file, [], holds_tasks=False)
            runner.preparation.resolve(*runner.preparation.environments())
        outcomes = runner.preparation.outcomes
        artifacts = {each.key: each.artifact for each in outcomes if each.node.shared and each.key and each.state != "missing"}
        lacking = runner.sharing.lacking(artifacts, anywhere=True, forget=not check)
        if not check:
            runner.sharing.publish(runner.preparation.shareable(), alone=True)  # What is owed otherwise is not for several at once.
            lacking -= {record.key for record in runner.sharing.finish()}
        return Warmed(project.file, outcomes, frozenset(lacking))
    except FlyteError as error:
        return Warmed(project.file, [], error=error)
    finally:
        stores.close()
