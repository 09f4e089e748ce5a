"""Processes that a killed worker has left, and that have left its process group before."""

from __future__ import annotations

from flyte_build.runner.action import Action


def kill_orphans(action: Action) -> None:
    """Kill the processes that an attempt has started, which its variables show.

    A process that was started with other variables is not found.
    """
    import psutil

    marks = action.marks.items()
    for process in psutil.process_iter():
        try:
            if marks <= process.environ().items():
                process.kill()
        except (psutil.Error, OSError):  # It has ended, or belongs to another user.
            continue
