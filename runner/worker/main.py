"""The worker: a process that waits for one action, runs it, writes its result, and ends.

It is started early, while the command is still preparing, and reads its order from a pipe: one line
of JSON with the directory of the action and the environment variables to add. If the pipe is
closed, the command is gone: before the line, the worker just ends; after it, the whole process
group is killed. It is pure Python, with few modules.
"""

from __future__ import annotations

import _thread
import json
import os
import select
import signal
from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

from flyte_build._alias import install_alias
from flyte_build.runner.result import NO_RESULT

from .execute import finish
from .order import carry_out, end_children, end_group, leave, read_line, say, send
from .spawn import CONTROL

# Modules that are imported while the worker waits: those that a bundle and each task's file need,
# then those of async tasks, in the order of their imports.
AHEAD = [
    "flyte_build.workspace.import_hooks",
    "flyte_build.declarations.environment",
    "flyte_build.values.annotations",
    "flyte_build.values.scalars",
    "selectors",
    "socket",
    "ssl",
    "contextvars",
    "heapq",
    "logging",
    "concurrent.futures",
    "threading",
    "asyncio.events",
    "asyncio.tasks",
    "asyncio",
]


def main() -> None:
    """Wait for an action and run it."""
    begin()
    for name in AHEAD:
        if select.select([CONTROL], [], [], 0)[0]:
            break
        __import__(name)
    work()


def begin() -> None:
    """Do what each worker does first."""
    # The command handles the terminal's Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    install_alias()


def is_alone() -> bool:
    """Whether the command at the other end of `CONTROL` is gone."""
    poll = select.poll()
    poll.register(CONTROL, 0)  # A hang-up is reported in any case.
    return bool(poll.poll(0))


def work() -> NoReturn:
    """Wait for an order, carry it out, and end this process."""
    line = read_line(CONTROL)
    if not line.endswith(b"\n") or is_alone():
        os._exit(0)
    order = json.loads(line)
    if order.get("shares"):
        from .seats import share

        share(order)
    if order.get("keeps"):
        from .kept import serve

        serve(order)
    _thread.start_new_thread(_watch, ())
    result = carry_out(order)
    try:
        send(result, order)
    except OSError as error:
        say(f"Cannot write the result: {error}\n")
        finish(NO_RESULT)
    finish(1 if result.error else 0, then=partial(_leave, order))


def _watch() -> None:
    while os.read(CONTROL, 1):
        pass
    end_group()


def _leave(order: Mapping[str, Any]) -> None:
    end_children()
    if order.get("sends"):  # Its directory is used no longer.
        leave(order["folder"])
