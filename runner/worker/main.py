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
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from flyte_build._alias import install_alias
from flyte_build.declarations.context import enter_process
from flyte_build.runner.result import NO_RESULT
from flyte_build.runner.sources import Sources

from .execute import OnDemand, context_of, execute, failure, finish, load_task
from .spawn import CONTROL

if TYPE_CHECKING:
    from flyte_build.declarations.context import Caller
    from flyte_build.runner.result import Result

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


_used: list[str] = []  # The bundle that is imported from.
terminated: list[int] = []
"""The signal that has ended the task, if any."""


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


def work() -> NoReturn:
    """Wait for an order, carry it out, and end this process."""
    with os.fdopen(os.dup(CONTROL), "rb") as control:
        line = control.readline()
    if not line.endswith(b"\n"):
        os._exit(0)
    order = json.loads(line)
    if order.get("keeps"):
        from .kept import serve

        serve(order)
    _thread.start_new_thread(_watch, ())
    result = carry_out(order)
    try:
        send(result, order)
    except OSError as error:
        _print(f"Cannot write the result: {error}\n")
        finish(NO_RESULT)
    finish(1 if result.error else 0, then=partial(_leave, order))


def carry_out(order: Mapping[str, Any]) -> Result:
    """Run the action of an order, and return its result."""
    signal.signal(signal.SIGTERM, _terminate)
    # The command's parent may have blocked it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if (action := order.get("action")) is None:
        with open(f"{order['folder']}/action.json", encoding="utf-8") as file:
            action = json.load(file)
    os.environ.update(order["env"])
    for path, text in order.get("files", {}).items():
        _write_private(path, text)
    sources, work = Sources.parse(action), f"{order['folder']}/work"
    if sources.bundle:
        use_bundle(sources, guarded=order.get("guarded", False))
    sys.argv = [action["module"]]
    _enter(work, sources.folder if sources.bundle else "")
    own = os.getpid()
    caller = _caller(order.get("endpoint"), action, sources.folder)
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
    if action["parent"] is not None:
        result = _inline(result, action)
    if result.error and sources.bundle and sources.root:
        from .missing_files import hint

        if advice := hint(result.error, sources, work):
            result = result.advised(advice)
    if result.error and result.error.traceback and not terminated:
        _print(result.error.traceback)
    return result


def send(result: Result, order: Mapping[str, Any], *, ends: bool = False) -> None:
    """Send the result of an order. Raises `OSError`.

    No line end follows if the worker ends, though it was to be kept.
    """
    if not order.get("sends"):
        result.write(order["folder"])
        return
    with os.fdopen(os.dup(CONTROL), "wb") as control:
        control.write(result.encoded() + (b"" if ends else b"\n"))


def _inline(result: Result, action: Mapping[str, Any]) -> Result:
    """Return a child's result, or an error if it is too large for its caller."""
    from flyte_build.runner.child import INLINE, inline_error
    from flyte_build.runner.result import Failure, Result

    limit = action["spec"]["options"].get("max_inline_io_bytes", INLINE)
    if (size := len(json.dumps(dict(result.outputs)))) <= limit:
        return result
    message = inline_error(action["task"], "outputs", size, limit)
    return Result("failed", error=Failure("InlineIOMaxBytesBreached", message, is_final=True))


def _caller(endpoint: Mapping[str, str] | None, action: Mapping[str, Any], root: str) -> Caller:
    """Return the caller for the tasks that the task calls."""
    from flyte_build.declarations.call import InProcess

    if endpoint is None:
        return InProcess()
    return OnDemand(partial(_children, endpoint, action, root))


def _children(endpoint: Mapping[str, str], action: Mapping[str, Any], root: str) -> Caller:
    from .children import Children
    from .client import Client

    client = Client(endpoint, action["run"], action["id"])
    return Children(client, action["id"], action["attempt"], root)


def use_bundle(sources: Sources, guarded: bool) -> None:
    """Import the project's modules from its bundle, from now on.

    With `guarded`, on a machine with working trees, modules from those are refused.
    """
    if sources.bundle in _used:
        return
    _used.append(sources.bundle)
    from flyte_build.workspace.import_hooks import (
        Guard,
        install_targets,
        is_ours,
        is_own,
        loaded_modules,
        use_sources,
    )

    code = sources.folder

    def folders(roots: Sequence[str]) -> list[str]:
        return [f"{code}/{root}" if root else code for root in roots]

    install_targets(sources.root)
    removed = [
        entry
        for entry in sys.path
        if guarded and is_own(f"{entry}/x") and not os.path.isfile(entry)
    ]
    kept = [entry for entry in sys.path if entry not in removed]
    roots, last = folders(sources.roots), folders(sources.last)
    sys.path[:] = [*roots, *kept, *last]
    bytecode = f"{sources.bundle}/bytecode"
    use_sources(
        lambda folder: _is_below(folder, code),
        lambda path: f"{bytecode}/{os.path.relpath(path, code)}",
    )
    if guarded:
        # Modules that the interpreter loaded from a working tree at its start.
        for name, file in loaded_modules():
            if is_own(file) and not is_ours(name) and name != "__main__":
                sys.modules.pop(name, None)
        tree = (
            [f"{sources.root}/{root}".rstrip("/") for root in sources.roots] if sources.root else []
        )
        sys.meta_path.insert(
            0, Guard(code, [*roots, *last], [*tree, *removed], lambda path: _advice(sources, path))
        )


def _is_below(folder: str, code: str) -> bool:
    real = os.path.realpath(folder)
    return (real + "/").startswith(code + "/") and "/site-packages/" not in real + "/"


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


def _print(text: str) -> None:
    """Write to standard error, as Python does with tracebacks, and so to the log."""
    try:
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # The task closed its streams.
        return


def _advice(sources: Sources, path: str) -> str:
    if not sources.root:
        return (
            f"It is in {path}, but was not deployed: import it at the top of a module, or include"
            " it, then deploy again."
        )
    from .missing_files import advice

    return advice(sources, path)


def _watch() -> None:
    while os.read(CONTROL, 1):
        pass
    try:
        end_children()
    finally:  # In any case the group ends, including this process.
        os.killpg(0, signal.SIGKILL)


def _leave(order: Mapping[str, Any]) -> None:
    end_children()
    if order.get("sends"):  # Its directory is used no longer.
        leave(order["folder"])


def leave(folder: str) -> None:
    """Leave the working directory of an action, and remove it unless there is something in it."""
    from flyte_build.runner.action import tidy_work

    os.chdir("/")
    tidy_work(folder)


def end_children() -> None:
    """Kill all processes that this one has started, including those that left its process group.

    The group itself is killed by the process that reaps this one.
    """
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # Most tasks have no children: skip the import.
        return
    from .process_tree import descendants

    for pid in descendants(os.getpid()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _terminate(number: int, frame: Any) -> None:
    terminated.append(number)
    raise SystemExit(128 + number)  # An exception lets the task's `finally` blocks run.
