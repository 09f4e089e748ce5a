"""Checkpoints: what an attempt saves for the next one, or for a recovered run.

<action>/checkpoint/saved-<number>   the newest one counts: a file `payload`, or a directory
<action>/checkpoint/path             the copy that the task reads
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PAYLOAD = "payload"


class Checkpoint:
    """Checkpoint of an action, in the directory `folder`.

    `save` keeps bytes, a file or a directory, in place of what was saved before; `load` gets it
    back in another attempt. Both have a form for coroutines, and one for functions (`_sync`).
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._before = self._newest() is not None

    @property
    def path(self) -> Path:
        """Directory that `load` fills."""
        path = self._folder / "path"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def prev_exists(self) -> bool:
        """Whether an earlier attempt, or the run that is recovered, has saved something."""
        return self._before

    def load_sync(self) -> Path | None:
        """Return what was saved last: a file, or a directory with its files; None if nothing was.

        It is a copy, which the task may change.
        """
        newest = self._newest()
        if newest is None:
            return None
        shutil.rmtree(self._folder / "path", ignore_errors=True)
        is_file = (newest / _PAYLOAD).is_file() and (newest / ".file").exists()
        shutil.copytree(newest, self.path, dirs_exist_ok=True, symlinks=True)
        if not is_file:
            return self.path
        (self.path / ".file").unlink()
        return self.path / _PAYLOAD

    async def load(self) -> Path | None:
        """Return what `load_sync` returns."""
        return await asyncio.to_thread(self.load_sync)

    def save_sync(self, data: bytes | str | Path) -> None:
        """Save bytes, or the file or directory at a path. Raises `FileNotFoundError`."""
        if not isinstance(data, bytes) and not Path(data).exists():
            raise FileNotFoundError(f"There is nothing to save at {data}")
        new = self._folder / f".new-{os.urandom(4).hex()}"
        new.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, bytes):
            new.mkdir()
            (new / _PAYLOAD).write_bytes(data)
            (new / ".file").touch()
        elif Path(data).is_dir():
            shutil.copytree(data, new, symlinks=True)
        else:
            new.mkdir()
            shutil.copy(data, new / _PAYLOAD)
            (new / ".file").touch()
        # Numbers grow, also if the clock is set back.
        last = self._newest()
        number = max(time.time_ns(), int(last.name.partition("-")[2]) + 1 if last else 0)
        new.rename(self._folder / f"saved-{number}")
        if last:
            shutil.rmtree(last, ignore_errors=True)

    async def save(self, data: bytes | str | Path) -> None:
        """Save what `save_sync` saves."""
        await asyncio.to_thread(self.save_sync, data)

    def _newest(self) -> Path | None:
        return max(
            self._folder.glob("saved-*"),
            key=lambda path: int(path.name.partition("-")[2]),
            default=None,
        )


def latest_checkpoint(
    root: Path | str,
    glob_pattern: str = "**/last.ckpt",
    *,
    key: Callable[[Path], Any] | None = None,
) -> Path | None:
    """Return the file below `root` that matches a pattern and has the greatest `key`, or None.

    The default key is the time of the last change.
    """
    return max(Path(root).glob(glob_pattern), key=key or _changed, default=None)


def _changed(path: Path) -> float:
    return path.stat().st_mtime
