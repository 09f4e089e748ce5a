"""Processes that a killed worker has left, and that have left its process group before."""

from __future__ import annotations

from collections.abc import Mapping


def kill_orphans(variables: Mapping[str, str]) -> None:
    """Kill the processes that an attempt has started, which its variables show.

    A process that was started with other variables is not found.
    """
    import psutil

    marks = variables.items()
    for process in psutil.process_iter():
        try:
            if marks <= process.environ().items():
                process.kill()
        except (psutil.Error, OSError):  # It has ended, or belongs to another user.
            continue
