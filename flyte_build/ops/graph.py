"""Current state of the graph of a file's nodes."""

from __future__ import annotations

import os

from flyte_build.bundler.nodes import nothing_to_write
from flyte_build.graph.node import Outcome
from flyte_build.graph.resolver import Resolver

from .prepare import FilePlan


def survey(plan: FilePlan) -> list[Outcome]:
    """Resolve all nodes of a file in a read-only session, and return their outcomes.

    Dependencies come first. Packs are included if the file's tree is known.
    """
    outcomes = plan.resolve(*plan.environments())
    if outcomes[plan.tree].artifact is None:
        return plan.outcomes
    packs = Resolver(plan.session.cache.records, read_only=True).resolve(
        plan.bundle.packs(nothing_to_write)
    )
    bundle = outcomes[plan.bundle]._replace(children=[*packs.values()])
    found: list[Outcome] = []
    for outcome in plan.outcomes:
        found += (*packs.values(), bundle) if outcome.node is plan.bundle else (outcome,)
    return found


def size_of(plan: FilePlan, outcome: Outcome) -> int | None:
    """Return the size of an artifact in bytes, or None if it is unknown.

    The size of a tree is that of its files, and the size of any other artifact that of its blobs.
    """
    if outcome.node is plan.tree:
        return (
            None if outcome.artifact is None else sum(size for _, size in plan.tree.tree().sizes())
        )
    if outcome.record is None or not outcome.node.usable(outcome.record):
        return None
    if outcome.node.kind == "environment":
        return None
    paths = map(plan.session.cache.blobs.path, outcome.record.refs)
    return sum(os.path.getsize(path) for path in paths if os.path.exists(path)) or None
