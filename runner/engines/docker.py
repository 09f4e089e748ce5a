"""The `docker` engine: each attempt runs in a container of its own, which ends with the command.

The image does not have to contain this package; it needs Python 3.11 or newer as `python3`. The
code, the runtime (this package, in pure Python) and the action's directory are mounted. The worker
reads its order from standard input, so the values of variables and secrets are not part of the
container's configuration.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any

from flyte_build.cas.os_errors import storing
from flyte_build.errors import EngineUnavailable
from flyte_build.images.docker import client as docker_client
from flyte_build.images.docker.client import asking
from flyte_build.runner.action import Action
from flyte_build.runner.result import NO_RESULT, Failure, Result
from flyte_build.runner.sources import Sources
from flyte_build.runner.worker.missing_files import hint

from .output import Output, output_of
from .protocol import Event, Sink, Waits

if TYPE_CHECKING:
    from docker import APIClient

LABEL = "flyte"  # Its value is the id of the store.
RUN_LABEL, ACTION_LABEL = "flyte.run", "flyte.action"
_ACTION, _CODE, _RUNTIME = "/opt/flyte/action", "/opt/flyte/code", "/opt/flyte/runtime"
_API = "/opt/flyte/api"  # Directory of the controller's socket.
# Seconds to wait for removal requests to be sent; the engine carries them out without us.
_ASKED = 0.01
_CHUNK = 1 << 16
# The exit code for a command that is not found (POSIX, "Exit Status for Commands"); Docker's init
# uses it, too.
_NO_PYTHON = 127
_START = """
import os, sys
if sys.version_info < (3, 11):
    sys.exit("flyte needs Python 3.11 or newer; python3 of this image is " + sys.version.split()[0])
os.dup2(0, 3)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
from flyte_build.runner.worker.main import main
main()
"""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Settings of the containers of an engine.

    `image` is the engine's name of the image, `runtime` a directory with this package. `store` is
    the id in the containers' labels.
    """

    image: str
    runtime: str
    store: str
    network: str = ""


class DockerEngine:
    """Engine that runs attempts in containers of one `place`; `sink` receives the output."""

    name = "docker"
    runs_here = False
    acts_on = frozenset(("retries", "timeout", "env_vars", "resources", "secrets"))

    def __init__(self, place: Place, sink: Sink, client: APIClient) -> None:
        self._place, self._sink, self._client = place, sink, client
        self._containers: dict[tuple[str, int], _Container] = {}
        self._removing: list[Thread] = []

    def submit(self, action: Action) -> None:
        """Begin an attempt, unless it has begun already (same action, same attempt).

        Raises `EngineUnavailable` and `StoreUnavailable`.
        """
        if (action.id, action.attempt) in self._containers:
            return
        with storing("write an action"):
            _write(action)
            output = output_of(action, self._sink)
        try:
            id, socket = self._started(action)
        except BaseException:
            output.close()
            raise
        self._containers[action.id, action.attempt] = _Container(id, action, socket, output)

    def _started(self, action: Action) -> tuple[str, Any]:
        """Return the id of a container that has its order, and the socket of its streams."""
        order = action.order(_ACTION)
        if action.endpoint:
            order["endpoint"] = action.endpoint._replace(socket=f"{_API}/socket")._asdict()
        with asking("start a container"):
            made = self._client.create_container_from_config(self._configuration(action))["Id"]
        socket = None
        try:
            with asking("start a container"):
                socket = self._client.attach_socket(
                    made, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
                )
                socket._sock.sendall(json.dumps(order).encode() + b"\n")
                self._client.start(made)
        except BaseException:
            if socket:
                _close(socket)
            docker_client.remove_container(self._client, made)
            raise
        return made, socket

    def _configuration(self, action: Action) -> dict[str, Any]:
        """Return the container's configuration for the engine's API.

        See docs.docker.com/reference/api/engine, "ContainerCreate".
        """
        place, limits = self._place, action.limits
        mounts = [(action.folder, _ACTION, False), (place.runtime, _RUNTIME, True)]
        if action.call.code:
            mounts.append((f"{action.call.code}/code", _CODE, True))
        if action.endpoint:
            mounts.append((os.path.dirname(action.endpoint.socket), _API, True))
        host = {
            "Init": True,
            "Mounts": [
                {"Type": "bind", "Source": source, "Target": to, "ReadOnly": fixed}
                for source, to, fixed in mounts
            ],
            "NetworkMode": place.network or "default",
            **({"NanoCpus": int(limits.cpu * 1e9)} if limits.cpu else {}),
            **({"Memory": limits.memory, "MemorySwap": limits.memory} if limits.memory else {}),
            **({"ShmSize": limits.shm} if limits.shm else {}),
            **(
                {"DeviceRequests": [{"DeviceIDs": [*action.gpus], "Capabilities": [["gpu"]]}]}
                if action.gpus
                else {}
            ),
        }
        if folders := {path.rpartition("/")[0] for path in action.call.secrets.files}:
            host["Tmpfs"] = dict.fromkeys(folders, "mode=1777")
        return {
            "Image": place.image,
            "Entrypoint": ["python3", "-u", "-c", _START],
            "Cmd": [],
            "Env": [f"PYTHONPATH={_RUNTIME}", "PYTHONSAFEPATH=1", "PYTHONHOME="],
            "Labels": {LABEL: place.store, RUN_LABEL: action.run, ACTION_LABEL: action.id},
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "HostConfig": host,
        }

    def waits(self) -> Waits:
        """Return the output of containers, and the readers of held output."""
        containers = self._containers.values()
        return Waits(
            [each.socket.fileno() for each in containers if not each.output.is_held],
            [each.output.descriptor for each in containers if each.output.is_held],
        )

    def events(self) -> list[Event]:
        """Pass on output, and return the attempts that have ended, without waiting."""
        found = []
        for container in list(self._containers.values()):
            container.pass_on()
            if container.ended and not container.output.is_held:
                found.append(self._ended(container))
        return found

    def _ended(self, container: _Container) -> Event:
        action = container.action
        result = None if container.is_asked else Result.read(action.folder)
        # Its streams are closed and its result is written: do not wait for the container's end.
        if result and result.error is None:
            self._forget(container)
            return Event(action, "succeeded", 0)
        if result and result.error and action.call.code and action.call.workspace.root:
            _advise(action, result, result.error)
        try:
            with asking("inspect an ended container"):
                self._client.wait(container.id)
                state = self._client.inspect_container(container.id)["State"]
        except EngineUnavailable as error:
            self._forget(container)
            return Event(action, "lost", why=f"its container is gone: {error.why}")
        self._forget(container)
        return _event(action, state, container.is_asked)

    def cancel(self, action: Action, at_once: bool) -> None:
        """Ask the attempt and all its processes to end; kill them with `at_once`."""
        container = self._containers.get((action.id, action.attempt))
        if container is None:
            return
        container.is_asked = True
        try:
            with asking("stop a container"):
                self._client.kill(container.id, signal.SIGKILL if at_once else signal.SIGTERM)
        except EngineUnavailable:  # It ended meanwhile, or the engine is gone.
            return

    def running(self) -> list[Action]:
        """Return the attempts that have not ended."""
        return [container.action for container in self._containers.values()]

    def close(self) -> None:
        """Kill and remove all remaining containers."""
        left = list(self._containers.values())
        for container in left:
            self._forget(container)
        for thread in self._removing:
            thread.join(None if left else _ASKED)

    def _forget(self, container: _Container) -> None:
        container.close()
        del self._containers[container.action.id, container.action.attempt]
        thread = Thread(
            target=docker_client.remove_container, args=(self._client, container.id), daemon=True
        )
        thread.start()
        self._removing.append(thread)


class _Container:
    """A container that runs an attempt; `socket` carries its streams."""

    def __init__(self, id: str, action: Action, socket: Any, output: Output) -> None:
        self.id, self.action, self.socket, self.output = id, action, socket, output
        self.ended = self.is_asked = False

    def pass_on(self) -> None:
        """Pass on output; after it was asked to end, the reader is not waited for."""
        self.output.pass_on(leave=self.is_asked)
        if not (self.ended or self.output.is_held) and _is_readable(self.socket.fileno()):
            self._read()
            if self.ended:
                self.output.end()
            self.output.pass_on(leave=self.is_asked)

    def _read(self) -> None:
        """Read one frame of its output."""
        from docker.utils.socket import next_frame_header, read

        try:
            stream, size = next_frame_header(self.socket)
            self.ended = stream < 0
            while size > 0:
                data = read(self.socket, min(size, _CHUNK))
                if not data:
                    self.ended = True
                    return
                self.output.take(stream, data)
                size -= len(data)
        except ConnectionError:  # The engine is gone.
            self.ended = True

    def close(self) -> None:
        """Close the log and the socket."""
        self.output.close()
        _close(self.socket)


def _write(action: Action) -> None:
    """Write an action into its directory, for any user that the image may have.

    Other users have no access to the parent directories.
    """
    code = "/opt/flyte" if action.call.code else ""
    action._replace(call=action.call._replace(code=code)).write()
    modes = {
        action.folder: 0o777,
        f"{action.folder}/work": 0o777,
        f"{action.folder}/action.json": 0o644,
    }
    for path, mode in modes.items():
        os.chmod(path, mode)
    if action.endpoint:
        os.chmod(os.path.dirname(action.endpoint.socket), 0o711)
        with suppress(FileNotFoundError):  # It is not open yet, and its directory tells its mode.
            os.chmod(action.endpoint.socket, 0o666)


def _close(socket: Any) -> None:
    socket._sock.close()
    socket.close()


def _is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _event(action: Action, state: Mapping[str, Any], cancelled: bool) -> Event:
    code, memory = state["ExitCode"], action.limits.memory
    if cancelled:
        return Event(action, "cancelled", code)
    if state["OOMKilled"] and code:
        limit = (
            f"more than its {memory / 2**20:,.0f} MiB of memory"
            if memory
            else "more memory than was available"
        )
        return Event(action, "failed", code, f"it used {limit}", out_of_memory=True)
    if code == 128 + signal.SIGKILL:
        return Event(action, "lost", code, "its container was killed (SIGKILL)")
    if code == NO_RESULT:
        return Event(
            action,
            "failed",
            code,
            "its result could not be written: is the disk full, or may the image's user not write"
            " into the run's directory?",
        )
    if code == _NO_PYTHON:
        return Event(
            action,
            "failed",
            code,
            "its image has no python3 on its PATH: tasks need Python 3.11 or newer",
        )
    if code > 128:
        number = code - 128
        return Event(
            action,
            "failed",
            code,
            f"its container was ended by signal {number} ({signal.strsignal(number)})",
        )
    return Event(
        action,
        "succeeded" if code == 0 else "failed",
        code,
        "" if code == 0 else f"its container ended with exit code {code}",
    )


def _advise(action: Action, result: Result, error: Failure) -> None:
    """Add advice to a result whose error names a file that only the project has.

    The container cannot do that, since it does not see the project.
    """
    code = f"{action.call.code}/code"
    here = error._replace(
        message=error.message.replace(_CODE, code), traceback=error.traceback.replace(_CODE, code)
    )
    if advice := hint(here, Sources.parse(action.document()), f"{_ACTION}/work"):
        result.advised(advice).write(action.folder)


def remove_orphans(client: APIClient, store: str, is_going: Callable[[str], bool]) -> None:
    """Remove the containers of a store's runs that have ended.

    Their commands were killed before they could remove them.
    """
    docker_client.remove_orphans(
        client, f"{LABEL}={store}", lambda labels: is_going(labels.get(RUN_LABEL, ""))
    )
