"""Containers of the `docker` engine: how they are configured, started and removed."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any

from flyte_build.images.docker import client as docker_client
from flyte_build.images.docker.client import asking
from flyte_build.runner.action import Action

if TYPE_CHECKING:
    from docker import APIClient

LABEL = "flyte"  # Its value is the id of the store.
RUN_LABEL, ACTION_LABEL = "flyte.run", "flyte.action"
CODE = "/opt/flyte/code"
API = "/opt/flyte/api"  # Directory of the controller's socket.
_RUNTIME = "/opt/flyte/runtime"
CHECK = """
import os, sys
if sys.version_info < (3, 11):
    sys.exit("flyte needs Python 3.11 or newer; python3 of this image is " + sys.version.split()[0])
"""
# Seconds to wait for removal requests to be sent; the engine carries them out without us.
_ASKED = 0.01


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


class Containers:
    """Containers of one `place`."""

    def __init__(self, place: Place, client: APIClient) -> None:
        self._place, self.client = place, client
        self._removing: list[Thread] = []

    def start(
        self, action: Action, program: Sequence[str], folder: tuple[str, str], order: bytes = b""
    ) -> tuple[str, Any]:
        """Start a container for an action, and return its id and the socket of its streams.

        It runs Python with `program`, and finds the directory of an action, or of several, at the
        second path in `folder`. `order` comes on its standard input. Raises `EngineUnavailable`.
        """
        with asking("start a container"):
            configuration = self._configuration(action, program, folder)
            made = self.client.create_container_from_config(configuration)["Id"]
        socket = None
        try:
            with asking("start a container"):
                socket = self.client.attach_socket(
                    made, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
                )
                if order:
                    socket._sock.sendall(order)
                self.client.start(made)
        except BaseException:
            if socket:
                close(socket)
            docker_client.remove_container(self.client, made)
            raise
        return made, socket

    def remove(self, id: str) -> None:
        """Kill and remove a container, in a thread."""
        thread = Thread(target=docker_client.remove_container, args=(self.client, id), daemon=True)
        thread.start()
        self._removing.append(thread)

    def close(self, *, wait: bool) -> None:
        """Let removals begin, or wait for them."""
        for thread in self._removing:
            thread.join(None if wait else _ASKED)

    def _configuration(
        self, action: Action, program: Sequence[str], folder: tuple[str, str]
    ) -> dict[str, Any]:
        """Return the container's configuration for the engine's API.

        See docs.docker.com/reference/api/engine, "ContainerCreate".
        """
        place, limits = self._place, action.limits
        mounts = [(*folder, False), (place.runtime, _RUNTIME, True)]
        if action.call.code:
            mounts.append((f"{action.call.code}/code", CODE, True))
        if action.endpoint:
            mounts.append((os.path.dirname(action.endpoint.socket), API, True))
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
            "Entrypoint": ["python3", "-u", "-c", *program],
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


def seen(action: Action) -> Action:
    """Return an action as its worker in a container sees it."""
    code = "/opt/flyte" if action.call.code else ""
    return action._replace(call=action.call._replace(code=code))


def order_in(action: Action, folder: str) -> dict[str, Any]:
    """Return what a worker in a container is told, for which `folder` is the action's directory."""
    order = action.order(folder)
    if action.endpoint:
        order["endpoint"] = action.endpoint._replace(socket=f"{API}/socket")._asdict()
    return order


def open_to_all(action: Action) -> None:
    """Let any user that an image may have work in an action's directory, and reach the controller.

    Other users of this machine have no access to the parent directories.
    """
    for path in (action.folder, f"{action.folder}/work"):
        os.chmod(path, 0o777)
    if action.endpoint:
        os.chmod(os.path.dirname(action.endpoint.socket), 0o711)
        with suppress(FileNotFoundError):  # It is not open yet, and its directory tells its mode.
            os.chmod(action.endpoint.socket, 0o666)


def is_readable(descriptor: int) -> bool:
    """Whether there is something to read at once, if only the end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def close(socket: Any) -> None:
    """Close the socket of a container's streams."""
    socket._sock.close()
    socket.close()


def remove_orphans(client: APIClient, store: str, is_going: Callable[[str], bool]) -> None:
    """Remove the containers of a store's runs that have ended.

    Their commands were killed before they could remove them.
    """

    def is_owned(labels: Mapping[str, str]) -> bool:
        return is_going(labels.get(RUN_LABEL, ""))

    docker_client.remove_orphans(client, f"{LABEL}={store}", is_owned)
