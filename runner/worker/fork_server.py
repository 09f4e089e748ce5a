"""A process that forks workers: they begin with its imports, and Python need not start again.

Packets of JSON come on a socket, in order:

["begin"]                   the first, with a file: variables, and the location of the code
["import", [PACKAGE, ...]]  import packages, as far as they are installed
["fork"]                    fork a worker, whose control, output and error come along
["signal", PID, NUMBER]     send a signal to a worker and all its processes
["reap", PID]               wait for a worker that has ended, and kill the rest of its group

The answer to a fork is ["forked", PID], with a pidfd (pidfd_open(2)), or ["failed", REASON]; to a
reaping, it is ["ended", EXIT CODE]. The server has no threads, and never imports the user's
modules. It ends with its socket, and a worker with its own control.

In a container it is alone with one worker at a time, so everything else ends with that worker.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import signal
import socket
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from flyte_build.runner.sources import Sources
from flyte_build.workspace.import_hooks import is_own

from .bundle import use_bundle
from .main import AHEAD, begin, is_alone, work
from .preloads import harm, open_sockets, seed
from .process_tree import signal_group, signal_tree
from .spawn import CONTROL

_PACKET = 1 << 16  # Bytes of the largest packet.
_LONELY = 2  # Processes in a container: this one, and the first one.
_alone: list[bool] = []  # Not empty in a container, which has one worker at a time.
_CHILDREN = (  # What tasks need that are called, and call others.
    "flyte_build.declarations.cache",
    "flyte_build.declarations.describe",
    "flyte_build.declarations.resources",
    "flyte_build.runner.action",
    "flyte_build.workspace.workspace",
    "flyte_build.values.containers",
    "flyte_build.values.times",
    "flyte_build.runner.worker.children",
    "flyte_build.runner.worker.raised",
    "concurrent.futures.thread",
)


def main() -> None:
    """Serve until the socket is closed."""
    begin()
    for name in (*AHEAD, *_CHILDREN):
        __import__(name)
    os.close(os.pidfd_open(os.getpid()))  # Otherwise it fails here rather than in each fork.
    server = socket.socket(fileno=CONTROL)
    while (packet := _receive(server)) and not is_alone():  # Requests outlive the command.
        match packet:
            case ["begin"], [settings]:
                _configure(settings)
            case ["import", names], _:
                _import(names)
            case ["fork"], [control, out, err]:
                _fork(server, control, out, err)
            case ["signal", pid, number], _:
                signal_tree(pid, number)
            case ["reap", pid], _:
                _end_rest(pid)
                _, status = os.waitpid(pid, 0)
                _answer(server, "ended", os.waitstatus_to_exitcode(status))
    os._exit(0)


def _answer(server: socket.socket, kind: str, value: Any, descriptors: Sequence[int] = ()) -> None:
    socket.send_fds(server, [json.dumps([kind, value]).encode()], descriptors)


def _configure(file: int) -> None:
    """Set the variables, and import from the code, in the settings in a file."""
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, encoding="utf-8") as text:
        settings = json.load(text)
    os.environ.update(settings["variables"])
    sources = Sources.parse(settings["sources"])
    if sources.bundle:
        use_bundle(sources, guarded=not settings["alone"])
    if settings["alone"] and sum(map(str.isdigit, os.listdir("/proc"))) <= _LONELY:
        _alone.append(True)
    _settle()


def _end_rest(pid: int) -> None:
    """Kill what a worker that has ended has left."""
    signal_group(pid, signal.SIGKILL)
    if _alone:
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # All but this process and the first one: kill(2).


def _receive(server: socket.socket) -> tuple[Any, list[int]] | None:
    """Return the next packet, and the descriptors that came along."""
    data, descriptors, _, _ = socket.recv_fds(server, _PACKET, 3)
    return (json.loads(data), descriptors) if data else None


def _fork(server: socket.socket, *descriptors: int) -> None:
    """Fork a worker with these descriptors, and answer."""
    pid = -1
    try:
        with warnings.catch_warnings():  # Of native threads, since Python 3.12.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _become_worker(server, *descriptors)
        with suppress(OSError):  # The worker does so, too: whichever comes first.
            os.setpgid(pid, pid)
        end = os.pidfd_open(pid)
    except OSError as error:
        if pid > 0:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        _answer(server, "failed", str(error))
    else:
        _answer(server, "forked", pid, [end])
        os.close(end)
    for each in descriptors:
        os.close(each)


def _import(names: list[str]) -> None:
    """Import packages; a server that must not fork any more ends."""
    for name in names:
        before = open_sockets()
        # It may not be installed here, be the user's own, or fail: in the fork, too.
        with suppress(Exception):
            spec = importlib.util.find_spec(name)
            if spec and spec.origin and not is_own(spec.origin):
                __import__(name)
        if why := harm(before):
            print(f"{name} is not imported ahead: {why}", file=sys.stderr)
            os._exit(1)
    _settle()


def _settle() -> None:
    """Keep the collector from touching, and so copying, what forks share."""
    gc.collect()
    gc.freeze()


def _become_worker(server: socket.socket, control: int, out: int, err: int) -> NoReturn:
    """Work, in a fork, and end like a process that was started."""
    code: Any = 1
    try:
        os.setpgid(0, 0)
        server.close()
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(control, CONTROL, inheritable=False)
        for each in (control, out, err):
            os.close(each)
        seed()
        work()
    except SystemExit as end:
        code = end.code
    except BaseException:  # As the interpreter does.
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code if isinstance(code, int) else 1)
