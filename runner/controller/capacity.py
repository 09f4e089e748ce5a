"""Capacity of a machine for the actions of a run: slots, and GPUs by their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from flyte_build.runner.limits import VISIBLE_GPUS

from .slots import Slots

_DEVICE = "nvidia"  # NVIDIA's driver has a device `/dev/nvidia0`, ...
_ENDLESS = float("inf")
_MOST = 1 << 16  # Descriptors that this process opens at most.
_OTHERS = 100  # Of them, those for files, databases and engines.
_EACH = 8  # For each action: its output, its result, its end, its log, and those of spare workers.


class Capacity:
    """Slots of a machine, and its GPUs, which are handed to attempts one by one.

    An action that resumes does not wait for its GPUs again, so that two may hold the same one; the
    GPUs that the fewest hold are handed out first.
    """

    def __init__(self, slots: Slots, gpus: Sequence[str] = ()) -> None:
        self.slots, self._gpus = slots, gpus
        self._held: dict[str, Sequence[str]] = {}

    def worker_gpus(self, worker: str, count: int) -> Sequence[str]:
        """Return the names of the GPUs of a worker that several actions share: always the same."""
        return self._held.get(worker) or self.take_gpus(worker, count)

    def take_gpus(self, action: str, count: int) -> Sequence[str]:
        """Return the names of GPUs for an attempt of an action, in place of those it had."""
        self.release_gpus(action)
        if not count:
            return ()
        holders = Counter(name for names in self._held.values() for name in names)
        names = sorted(self._gpus, key=lambda name: holders[name])[:count]
        if names:
            self._held[action] = names
        return names

    def release_gpus(self, action: str) -> None:
        """Take back the GPUs of an action, if it has any."""
        self._held.pop(action, None)


def machine_capacity(max_actions: int | None) -> Capacity:
    """Return what this machine offers to at most so many actions at once."""
    gpus = _gpus()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = max(1, _descriptors() // _EACH)
    slots = Slots(
        cpu=os.cpu_count() or 1,
        memory=memory,
        gpu=len(gpus),
        actions=min(max_actions or most, most),
    )
    return Capacity(slots, gpus)


def _descriptors() -> int:
    """Return how many descriptors this process may open for actions; it gets as many as it may."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # Some systems have further limits.
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return (_MOST if soft == resource.RLIM_INFINITY else min(soft, _MOST)) - _OTHERS


def endless_capacity() -> Capacity:
    """Return the capacity for actions in their caller's process, which take no slots."""
    return Capacity(Slots(_ENDLESS, _ENDLESS, _ENDLESS, _ENDLESS))


def _gpus() -> list[str]:
    """Return the names of the GPUs that programs started here may use.

    In the variable, an invalid name hides those after it.
    """
    if (visible := os.environ.get(VISIBLE_GPUS)) is None:
        rest = (name.removeprefix(_DEVICE) for name in os.listdir("/dev") if _DEVICE in name)
        return sorted(filter(str.isdecimal, rest), key=int)
    names = [name.strip() for name in visible.split(",")]
    invalid = (at for at, name in enumerate(names) if not name or name.startswith("-"))
    return names[: next(invalid, len(names))]
