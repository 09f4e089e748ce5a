"""Verification of everything that is stored on this machine, with repairs where possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flyte_build.bundler import extraction, identity, proof
from flyte_build.cas.digest import Digest
from flyte_build.cas.records import Record
from flyte_build.cas.verify import Bad, verify_blobs
from flyte_build.images.environments import venv
from flyte_build.images.environments.node import EnvironmentNode

if TYPE_CHECKING:
    from .stores import Stores


def verify(stores: Stores, repair: Callable[[Record], str]) -> tuple[dict[str, int], list[Bad]]:
    """Check all blobs, extractions and environments, and return their numbers, and the defects.

    Corrupt blobs are moved to quarantine; bad extractions and environments are removed. A record
    with missing blobs is deleted, unless `repair` fetches them: it returns the place they came
    from, or "".
    """
    cache = stores.cache
    with cache.preparing():
        blobs, bad = verify_blobs(cache, stores.reporter.files_read, repair, _blobs_of)
        _, wrong = proof.verify(cache)
    extractions, changed = extraction.verify(cache)
    environments, broken = venv.verify(cache)
    counts = {"blobs": blobs, "extractions": extractions, "environments": environments}
    return counts, [*bad, *wrong, *changed, *broken]


def _blobs_of(record: Record) -> list[Digest]:
    if record.kind == EnvironmentNode.kind:
        return []  # It refers to a directory, not to blobs.
    return identity.blobs_of(record) if record.kind == identity.KIND else list(record.refs)
