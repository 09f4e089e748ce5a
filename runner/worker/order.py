"""Carrying out an order: the action that it describes, its result, and what is left to end."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flyte_build.declarations.context import enter_process
from flyte_build.runner.sources import Sources

from .bundle import use_bundle
from .execute import OnDemand, context_of, execute, failure, finish, load_task
from .preloads import imported
from .process_tree import descendants, has_children, signal_each
from .spawn import CONTROL

if TYPE_CHECKING:
    from flyte_build.declarations.context import Caller
    from flyte_build.runner.result import Result

_CHUNK = 1 << 16
terminated: list[int] = []
"""The signal that has ended the task, if any."""


def carry_out(order: Mapping[str, Any]) -> Result:
    """Run the action of an order, and return its result."""
    signal.signal(signal.SIGTERM, _terminate)
    # The command's parent may have blocked it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    action, sources = prepare(order)
    own = os.getpid()
    caller = caller_of(order, action, sources)
    try:
        context = context_of(action, order["folder"], "remote", caller)
        enter_process(context)
        result = execute(
            lambda: load_task(action["module"], action["variable"]),
            action["inputs"],
            sources,
            context,
        )
    # SIGINT is ignored in this process, so the task itself has raised it.
    except KeyboardInterrupt as error:
        result = failure(error, sources)
    if order.get("keeps") and isinstance(caller, OnDemand):
        caller.close()
    # This is a child that the task has forked; its result does not count.
    if os.getpid() != own:
        finish(0)
    result = advised(result, action, sources, f"{order['folder']}/work")
    if result.error and result.error.traceback and not terminated:
        say(result.error.traceback)
    return result


def prepare(order: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sources]:
    """Bring this process into the state that an order describes.

    That is its variables, files of secrets, imports and directory. Returns the document of the
    action, and the location of its code.
    """
    action = action_of(order)
    os.environ.update(order["env"])
    for path, text in order.get("files", {}).items():
        _write_private(path, text)
    sources = Sources.parse(action)
    if sources.bundle:
        use_bundle(sources, guarded=order.get("guarded", False))
    sys.argv = [action["module"]]
    _enter(f"{order['folder']}/work", sources.folder if sources.bundle else "")
    return action, sources


def action_of(order: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the document of the action of an order."""
    if (action := order.get("action")) is None:
        with open(f"{order['folder']}/action.json", encoding="utf-8") as file:
            action = json.load(file)
    found: Mapping[str, Any] = action
    return found


def advised(result: Result, action: Mapping[str, Any], sources: Sources, work: str) -> Result:
    """Return a result as its caller gets it: not too large, and with advice on missing files.

    `work` is the directory that the task ran in.
    """
    if action["parent"] is not None:
        result = _inline(result, action)
    if result.error and sources.bundle and sources.root:
        from .missing_files import hint

        if advice := hint(result.error, sources, work):
            return result.advised(advice)
    return result


def read_line(control: int) -> bytes:
    """Read a line from a pipe or a socket, and nothing that follows it; b"" at the end."""
    if not stat.S_ISSOCK(os.fstat(control).st_mode):  # Only one line comes on a pipe.
        with os.fdopen(os.dup(control), "rb") as file:
            return file.readline()
    import socket

    line = b""
    with socket.socket(fileno=os.dup(control)) as own:
        while not line.endswith(b"\n") and (ahead := own.recv(_CHUNK, socket.MSG_PEEK)):
            line += own.recv(ahead.find(b"\n") + 1 or len(ahead))
    return line


def send(result: Result, order: Mapping[str, Any], *, ends: bool = False) -> None:
    """Send the result of an order. Raises `OSError`.

    No line end follows if the worker ends, though it was to be kept. What a fork server may import
    for others comes along.
    """
    if not order.get("sends"):
        result.write(order["folder"])
        return
    with os.fdopen(os.dup(CONTROL), "wb") as control:
        packages = imported()
        control.write(result.encoded(packages=packages) + (b"" if ends else b"\n"))


def _inline(result: Result, action: Mapping[str, Any]) -> Result:
    """Return a child's result, or an error if it is too large for its caller."""
    from flyte_build.runner.child import INLINE, inline_error
    from flyte_build.runner.result import Failure, Result

    limit = action["spec"]["options"].get("max_inline_io_bytes", INLINE)
    if (size := len(json.dumps(dict(result.outputs)))) <= limit:
        return result
    message = inline_error(action["task"], "outputs", size, limit)
    return Result("failed", error=Failure("InlineIOMaxBytesBreached", message, is_final=True))


def caller_of(order: Mapping[str, Any], action: Mapping[str, Any], sources: Sources) -> Caller:
    """Return the caller for the tasks that the task of an order calls."""
    from flyte_build.declarations.call import InProcess

    if (endpoint := order.get("endpoint")) is None:
        return InProcess()
    return OnDemand(partial(_children, endpoint, action, sources.folder))


def _children(endpoint: Mapping[str, str], action: Mapping[str, Any], root: str) -> Caller:
    from .children import Children
    from .client import Client

    client = Client(endpoint, action["run"], action["id"])
    return Children(client, action["id"], action["attempt"], root)


def _write_private(path: str, text: str) -> None:
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)


def _enter(folder: str, code: str) -> None:
    """Create and enter a working directory, with links to the bundle's top-level entries."""
    from flyte_build.workspace.workspace import BESIDE

    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(code) if code else ():
        if name != BESIDE and not os.path.lexists(f"{folder}/{name}"):
            os.symlink(f"{code}/{name}", f"{folder}/{name}")
    os.chdir(folder)


def leave(folder: str) -> None:
    """Leave the working directory of an action, and remove it unless there is something in it."""
    from flyte_build.runner.action import tidy_work

    os.chdir("/")
    tidy_work(folder)


def end_children() -> None:
    """Kill all processes that this one has started, including those that left its process group.

    The group itself is killed by the process that reaps this one.
    """
    if has_children():  # Most tasks have none, and a look at all processes takes longer.
        signal_each(descendants(os.getpid()), signal.SIGKILL)


def end_group() -> None:
    """Kill all processes that this one has started, its group, and so itself."""
    try:
        end_children()
    finally:
        os.killpg(0, signal.SIGKILL)


def _terminate(number: int, frame: Any) -> None:
    terminated.append(number)
    raise SystemExit(128 + number)  # An exception lets the task's `finally` blocks run.


def say(text: str) -> None:
    """Write a text to standard error, as Python does with tracebacks, and so to the log."""
    try:
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # The task closed its streams.
        return
