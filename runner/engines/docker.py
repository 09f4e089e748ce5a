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
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import TYPE_CHECKING, Any

from flyte_build.errors import EngineUnavailable
from flyte_build.images.docker import client as docker_client
from flyte_build.images.docker.client import asking
from flyte_build.runner.action import Action
from flyte_build.runner.result import NO_RESULT, Failure, Result
from flyte_build.runner.secrets import Secrets
from flyte_build.runner.worker.missing_files import hint
from flyte_build.runner.worker.sources import Sources

from .limits import Limits
from .output import Output
from .protocol import Event, Sink

if TYPE_CHECKING:
    from docker import APIClient

LABEL = "flyte"  # Its value is the id of the store.
RUN_LABEL = "flyte.run"
_ACTION, _CODE, _RUNTIME = "/opt/flyte/action", "/opt/flyte/code", "/opt/flyte/runtime"
# Seconds to wait for removal requests to be sent; the engine carries them out without us.
_ASKED = 0.01
_GRACE = 5.0  # Seconds between SIGTERM and SIGKILL.
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
    the id in the containers' labels; tasks find `secrets` in variables and files.
    """

    image: str
    runtime: str
    store: str
    network: str = ""
    limits: Limits = field(default_factory=Limits)
    secrets: Secrets = field(default_factory=Secrets)


class DockerEngine:
    """Engine that runs attempts in containers of one `place`; `sink` receives the output."""

    name = "docker"
    acts_on = frozenset(("retries", "timeout", "env_vars", "resources", "secrets"))

    def __init__(self, place: Place, sink: Sink, client: APIClient) -> None:
        self._place, self._sink, self._client = place, sink, client
        self._containers: dict[tuple[str, int], _Container] = {}
        self._removing: list[Thread] = []

    def submit(self, action: Action) -> None:
        """Begin an attempt, unless it has begun already (same action, same attempt)."""
        if (action.id, action.attempt) in self._containers:
            return
        replace(
            action, call=replace(action.call, code="/opt/flyte" if action.call.code else "")
        ).write()
        for path, mode in (("", 0o777), ("/work", 0o777), ("/action.json", 0o644)):
            # The image may have any user. Other users have no access to the parent directories.
            os.chmod(action.folder + path, mode)
        secrets = self._place.secrets
        order = {
            "folder": _ACTION,
            "env": {**action.call.env, **secrets.variables},
            "files": dict(secrets.files),
        }
        with asking("start a container"):
            made = self._client.create_container_from_config(self._configuration(action))["Id"]
            try:
                socket = self._client.attach_socket(
                    made, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
                )
                socket._sock.sendall(json.dumps(order).encode() + b"\n")
                self._client.start(made)
            except BaseException:
                self._client.remove_container(made, force=True)
                raise
        self._containers[action.id, action.attempt] = _Container(
            made, action, socket, Output(action, self._sink)
        )

    def _configuration(self, action: Action) -> dict[str, Any]:
        """Return the container's configuration for the engine's API.

        See docs.docker.com/reference/api/engine, "ContainerCreate".
        """
        place, limits = self._place, self._place.limits
        mounts = [(action.folder, _ACTION, False), (place.runtime, _RUNTIME, True)]
        if action.call.code:
            mounts.append((f"{action.call.code}/code", _CODE, True))
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
                {"DeviceRequests": [{"Count": limits.gpus, "Capabilities": [["gpu"]]}]}
                if limits.gpus
                else {}
            ),
        }
        if folders := {path.rpartition("/")[0] for path in place.secrets.files}:
            host["Tmpfs"] = dict.fromkeys(folders, "mode=1777")
        return {
            "Image": place.image,
            "Entrypoint": ["python3", "-u", "-c", _START],
            "Cmd": [],
            "Env": [f"PYTHONPATH={_RUNTIME}", "PYTHONSAFEPATH=1", "PYTHONHOME="],
            "Labels": {LABEL: place.store, RUN_LABEL: action.run},
            "OpenStdin": True,
            "StdinOnce": True,
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "HostConfig": host,
        }

    def wait(self, action: Action, seconds: float | None) -> Event | None:
        """Wait until the attempt has ended, at most some seconds; None means that it is running."""
        container = self._containers[action.id, action.attempt]
        deadline = None if seconds is None else time.monotonic() + seconds
        while not container.ended or container.output.is_held:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return None
            if container.asked is not None and now - container.asked > _GRACE:
                self.cancel(action, at_once=True)
            left = _GRACE if deadline is None else deadline - now
            if container.output.is_held:
                container.output.pass_on(left, leave=container.asked is not None)
            elif select.select([container.socket], [], [], left)[0]:
                container.read()
                container.output.pass_on(0.0, leave=False)
        result = None if container.asked else Result.read(action.folder)
        # Its streams are closed and its result is written: do not wait for the container's end.
        if result and result.error is None:
            self._forget(container)
            return Event("succeeded", 0)
        if result and result.error and action.call.code and action.call.workspace.root:
            _advise(action, result, result.error)
        with asking("inspect an ended container"):
            self._client.wait(container.id)
            state = self._client.inspect_container(container.id)["State"]
        self._forget(container)
        return _event(state, container.asked is not None, self._place.limits.memory)

    def cancel(self, action: Action, at_once: bool) -> None:
        """Ask the attempt and all its processes to end; kill them with `at_once`."""
        container = self._containers.get((action.id, action.attempt))
        if container is None:
            return
        if container.asked is None:
            container.asked = time.monotonic()
        try:
            with asking("stop a container"):
                self._client.kill(container.id, signal.SIGKILL if at_once else signal.SIGTERM)
        except EngineUnavailable:  # It ended meanwhile; if the engine is gone, `wait` raises.
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
    """A container that runs an attempt.

    `socket` carries its streams; `asked` is the monotonic time at which it was asked to end.
    """

    def __init__(self, id: str, action: Action, socket: Any, output: Output) -> None:
        self.id, self.action, self.socket, self.output = id, action, socket, output
        self.ended = False
        self.asked: float | None = None

    def read(self) -> None:
        """Read one frame of its output."""
        from docker.utils.socket import next_frame_header, read

        stream, size = next_frame_header(self.socket)
        self.ended = stream < 0
        while size > 0:
            data = read(self.socket, min(size, _CHUNK))
            if not data:
                self.ended = True
                return
            self.output.take(stream, data)
            size -= len(data)

    def close(self) -> None:
        """Close the log and the socket."""
        self.output.close()
        self.socket._sock.close()
        self.socket.close()


def _event(state: Mapping[str, Any], cancelled: bool, memory: int | None) -> Event:
    code = state["ExitCode"]
    if cancelled:
        return Event("cancelled", code)
    if state["OOMKilled"] and code:
        limit = (
            f"more than its {memory / 2**20:,.0f} MiB of memory"
            if memory
            else "more memory than was available"
        )
        return Event("failed", code, f"it used {limit}", out_of_memory=True)
    if code == NO_RESULT:
        return Event(
            "failed",
            code,
            "its result could not be written: is the disk full, or may the image's user not write"
            " into the run's directory?",
        )
    if code == _NO_PYTHON:
        return Event(
            "failed",
            code,
            "its image has no python3 on its PATH: tasks need Python 3.11 or newer",
        )
    if code > 128:
        number = code - 128
        return Event(
            "failed",
            code,
            f"its container was ended by signal {number} ({signal.strsignal(number)})",
        )
    return Event(
        "succeeded" if code == 0 else "failed",
        code,
        "" if code == 0 else f"its container ended with exit code {code}",
    )


def _advise(action: Action, result: Result, error: Failure) -> None:
    """Add advice to a result whose error names a file that only the project has.

    The container cannot do that, since it does not see the project.
    """
    here = Failure(*(text.replace(_CODE, f"{action.call.code}/code") for text in error))
    if advice := hint(here, Sources.parse(action.document()), f"{_ACTION}/work"):
        result.advised(advice).write(action.folder)


def remove_orphans(client: APIClient, store: str, is_going: Callable[[str], bool]) -> None:
    """Remove the containers of a store's runs that have ended.

    Their commands were killed before they could remove them.
    """
    docker_client.remove_orphans(
        client, f"{LABEL}={store}", lambda labels: is_going(labels.get(RUN_LABEL, ""))
    )
