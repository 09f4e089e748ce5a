"""Waiting for several engines at once."""

from __future__ import annotations

import select
from collections.abc import Iterable

from .protocol import Waits


def wait_for(waits: Iterable[Waits]) -> set[int]:
    """Wait until one of several conditions holds, and return the descriptors that are ready."""
    masks, seconds = dict[int, int](), list[float]()
    for each in waits:
        for descriptor in each.read:
            masks[descriptor] = masks.get(descriptor, 0) | select.POLLIN
        for descriptor in each.write:
            masks[descriptor] = masks.get(descriptor, 0) | select.POLLOUT
        if each.seconds is not None:
            seconds.append(each.seconds)
    poll = select.poll()
    for descriptor, mask in masks.items():
        poll.register(descriptor, mask)
    return {descriptor for descriptor, _ in poll.poll(1000 * min(seconds) if seconds else None)}
