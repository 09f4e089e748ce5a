"""Automatic garbage collection: at most daily, in a separate process, at the end of a command.

The file `collected.json` in the cache's directory is touched when a collection begins; at its end,
the result is written to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flyte_build.cas.atomic import replace_file
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.folder import opener
from flyte_build.cas.lease import lockable
from flyte_build.errors import StoreError
from flyte_build.settings import table
from flyte_build.settings.configuration import Configuration

if TYPE_CHECKING:
    from flyte_build.cas.gc import Collection, SpaceLimits

    from .stores import Stores

_EVERY = 86_400.0  # Seconds between two collections.
_SMALL = 64 << 20  # Bytes of blobs below which a cache is left alone.
_LAST = (
    {"ended": str, "by": str, "error": str},
    {"ended": str, "by": str, "error": None, "removed": int, "bytes": int, "complete": bool},
)
_LASTS = 120.0  # Seconds after which an automatic collection starts no more deletions.


def start_if_due(stores: Stores, config: Configuration) -> None:
    """Start a collection that outlives this process, unless the last one began within a day.

    If it did, this costs one `stat`. A new or small cache is not collected. Failures are ignored,
    so that they do not affect the command.
    """
    cache = stores.cache
    try:
        if not config[table.AUTO_GC] or not _is_due(cache):
            return
        _begin(cache)
        if _is_small(cache, config[table.MAX_SIZE]):
            return
        import json
        import subprocess
        import sys

        order = {
            "cache": cache.root,
            "executed": stores.places.executed,
            "keep": config[table.KEEP],
            "space": vars(space(config)),
        }
        # The process holds neither the terminal, nor pipes, nor the working directory, and does not
        # receive signals that are meant for the command.
        subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-c",
                "from flyte_build.ops.gc import main; main()",
                json.dumps(order),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except (OSError, StoreError):
        return


def space(config: Configuration) -> SpaceLimits:
    """Return the configured limits of the cache."""
    from flyte_build.cas.gc import SpaceLimits

    return SpaceLimits(
        max_size=config[table.MAX_SIZE],
        min_free=config[table.MIN_FREE],
        min_size=config[table.MIN_SIZE],
    )


def collect(
    cache: Cache,
    executed: str,
    keep: float,
    space: SpaceLimits,
    *,
    dry_run: bool,
    seconds: float = float("inf"),
) -> Collection:
    """Collect the cache (`cas.gc.collect`), and results of steps that no project pins any more.

    The results are kept in the directory `executed`. No deletions are started after `seconds`.
    """
    from dataclasses import replace

    from flyte_build.bundler.index import publish_index
    from flyte_build.cas import gc
    from flyte_build.images.build import step_results as steps

    collection = gc.collect(cache, keep, dry_run, space, seconds)
    if not dry_run:
        publish_index(cache)
    return replace(
        collection, removed=[*collection.removed, *steps.collect(executed, keep, dry_run)]
    )


def main() -> None:
    """Collect with the options in the last argument, unless another process is collecting."""
    import json
    import sys

    from flyte_build.cas.gc import SpaceLimits

    os.nice(10)
    order = json.loads(sys.argv[-1])
    cache = Cache.open(order["cache"], Counters(), lambda sentence: None)
    lock = os.open(
        f"{cache.folder}/housekeeping.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    if not lockable(lock):
        return
    try:
        collection = collect(
            cache,
            order["executed"],
            order["keep"],
            SpaceLimits(**order["space"]),
            dry_run=False,
            seconds=_LASTS,
        )
        note(cache, collection, "itself")
    except Exception as error:  # Only `flyte cache stats` shows it.
        _write(cache, {"by": "itself", "error": str(error)})


def note(cache: Cache, collection: Collection, by: str) -> None:
    """Write the result of a collection that `by` began; the next one is due in a day."""
    _begin(cache)
    counts = {
        "removed": len(collection.removed),
        "bytes": collection.bytes,
        "complete": collection.complete,
    }
    _write(cache, {"by": by, **counts, "error": None})


def last(cache: Cache) -> Mapping[str, Any] | None:
    """Read the result of the last collection: when it ended, who began it, what it removed.

    None if there was none yet, or its file is unreadable.
    """
    import json

    from flyte_build.deployments.shape import check

    try:
        with open(_path(cache), encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
        check(found, _LAST)
        return found
    except (OSError, ValueError, RecursionError):
        return None


def _path(cache: Cache) -> str:
    return f"{cache.folder}/collected.json"


def _is_due(cache: Cache) -> bool:
    try:
        began = os.stat(_path(cache)).st_mtime
    except FileNotFoundError:
        began = time.time()
        _begin(cache)
    # A time in the future was written before the clock was set back.
    return not 0 <= time.time() - began < _EVERY


def _is_small(cache: Cache, max_size: int | None) -> bool:
    limit, size = _SMALL if max_size is None else min(_SMALL, max_size), 0
    for _, each in cache.blobs.names():
        size += each
        if size > limit:
            return False
    return True


def _begin(cache: Cache) -> None:
    with open(_path(cache), "a", opener=opener):
        pass
    os.utime(_path(cache))


def _write(cache: Cache, document: Mapping[str, Any]) -> None:
    import json
    from datetime import UTC, datetime

    ended = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    replace_file(_path(cache), json.dumps({"ended": ended, **document}).encode(), sync=False)
