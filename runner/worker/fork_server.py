"""A process that forks workers: they begin with its imports, and Python need not start again.

Packets of JSON come on a socket, in order:

["begin", {VARIABLE: TEXT}, {...}]  the first: environment variables, and the location of the code
["import", [PACKAGE, ...]]          import packages, as far as they are installed
["fork"]                            fork a worker, whose control, output and error come along
["reap", PID]                       wait for a worker that has ended

The answer to a fork is the pid, with a pidfd (pidfd_open(2)), or the reason why there is none; the
answer to a reaping is the exit code. The server has no threads, and never imports the user's
modules. It ends with its socket, and a worker with its own control.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

from flyte_build.runner.sources import Sources

from .main import AHEAD, begin, use_bundle, work
from .preloads import harm, open_sockets, seed
from .spawn import CONTROL

PACKET = 1 << 16  # Bytes of the largest packet but the first.
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
    server = socket.socket(fileno=CONTROL)
    if not (first := server.recv(1 << 24)):
        os._exit(0)
    _, variables, code = json.loads(first)
    os.environ.update(variables)
    sources = Sources.parse(code)
    if sources.bundle:
        use_bundle(sources, guarded=True)
    _settle()
    while packet := _receive(server):
        match packet:
            case ["import", names], _:
                _import(names)
            case ["fork"], [control, out, err]:
                _fork(server, control, out, err)
            case ["reap", pid], _:
                _, status = os.waitpid(pid, 0)
                server.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _receive(server: socket.socket) -> tuple[Any, list[int]] | None:
    """Return the next packet, and the descriptors that came along."""
    data, descriptors, _, _ = socket.recv_fds(server, PACKET, 3)
    return (json.loads(data), descriptors) if data else None


def _fork(server: socket.socket, *descriptors: int) -> None:
    """Fork a worker with these descriptors, and answer."""
    try:
        pid = os.fork()
    except OSError as error:
        server.send(json.dumps(str(error)).encode())
    else:
        if pid == 0:
            _become_worker(server, *descriptors)
        with suppress(OSError):  # The worker does so, too: whichever comes first.
            os.setpgid(pid, pid)
        end = os.pidfd_open(pid)
        socket.send_fds(server, [json.dumps(pid).encode()], [end])
        os.close(end)
    for each in descriptors:
        os.close(each)


def _import(names: list[str]) -> None:
    """Import packages; a server that must not fork any more ends."""
    for name in names:
        before = open_sockets()
        try:
            __import__(name)
        except Exception:  # It is not installed here, or fails: in the fork, too.
            continue
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
