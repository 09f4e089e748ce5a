"""A real Docker Engine, and images for it that are made here: no image is pulled from elsewhere."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.support.needs import need

# Requests of Linux (netdevice(7), and linux/sockios.h).
_SET_FLAGS, _ADD_BRIDGE, _REMOVE_BRIDGE = 0x8914, 0x89A0, 0x89A1
_WAIT = 60.0  # Seconds for an engine to start.


def _answers(host: str) -> bool:
    return (
        subprocess.run(
            ["docker", "info"], capture_output=True, env={**os.environ, "DOCKER_HOST": host}
        ).returncode
        == 0
    )


class Daemon:
    """A `dockerd` whose files are all below `folder`; it runs from `start` to `end`."""

    def __init__(self, folder: str, *options: str) -> None:
        self.host, self._log = f"unix://{folder}/docker.sock", f"{folder}/log"
        self._folder = folder
        places = [f"--{name}={folder}/{name}" for name in ("data-root", "exec-root", "pidfile")]
        self._command = ["dockerd", "--host", self.host, *places, *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + _WAIT
        while not _answers(self.host):
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(
                    "dockerd did not start:\n" + Path(self._log).read_text()[-2000:],
                    pytrace=False,
                )
            time.sleep(0.1)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal, and wait for that; SIGKILL leaves its containers running."""
        if self._process:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def clean_up(self) -> None:
        """End it, with the containers and the mounts that a killed one has left."""
        self.end()
        for process in psutil.process_iter(["cmdline"]):
            if any(f"{self._folder}/" in word for word in process.info["cmdline"] or ()):
                for each in (*process.children(recursive=True), process):
                    with suppress(psutil.NoSuchProcess):
                        each.kill()
        mounted = [each.mountpoint for each in psutil.disk_partitions(all=True)]
        for place in reversed(mounted):
            if place.startswith(f"{self._folder}/"):
                subprocess.run(["umount", "--lazy", place], check=False)


@contextmanager
def docker_engine() -> Iterator[str]:
    """Yield the address of a running engine, or of a new one, which ends with the `with` block."""
    need("docker")
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if _answers(host):
        yield host
        return
    with _started() as daemon:
        yield daemon.host


@contextmanager
def own_daemon() -> Iterator[Daemon]:
    """Yield the daemon of a new engine, which a test may end and start again."""
    need("docker")
    with (
        _bridge(f"flyte{os.getpid()}") as bridge,
        _started(f"--bridge={bridge}", "--iptables=false", "--ip6tables=false") as daemon,
    ):
        yield daemon


@contextmanager
def _bridge(name: str) -> Iterator[str]:
    """Make a network bridge: one of its own leaves `docker0` to the machine's other engines.

    Without any (`--bridge=none`), an engine removes `docker0` at its start.
    """
    if os.geteuid() != 0:
        pytest.skip("a Docker Engine of its own needs root")
    with socket.socket() as control:
        fcntl.ioctl(control, _ADD_BRIDGE, name.encode() + b"\0")
        try:
            yield name
        finally:
            state = struct.pack("16sH14x", name.encode(), 0)  # Down, as the removal demands.
            fcntl.ioctl(control, _SET_FLAGS, state)
            fcntl.ioctl(control, _REMOVE_BRIDGE, name.encode() + b"\0")


@contextmanager
def _started(*options: str) -> Iterator[Daemon]:
    if os.geteuid() != 0:
        pytest.skip("no Docker Engine answers, and starting one needs root")
    with tempfile.TemporaryDirectory(prefix="flyte-docker-", ignore_cleanup_errors=True) as folder:
        daemon = Daemon(folder, *options)
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.clean_up()


class Engine:
    """An engine at `host`, as the `docker` command talks to it."""

    def __init__(self, host: str) -> None:
        self.host = host

    def __call__(self, *words: str, input: bytes | None = None) -> str:
        """Run a `docker` command that must succeed, and return its output."""
        done = subprocess.run(
            ["docker", *words],
            input=input,
            capture_output=True,
            env={**os.environ, "DOCKER_HOST": self.host},
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def build(self, dockerfile: str) -> str:
        """Build a Dockerfile (its text) without any context, and return the image's id."""
        return self("build", "--quiet", "-", input=dockerfile.encode())

    def pushed(self, image: str, name: str) -> str:
        """Push an image under a name, remove that name here, and return it with the digest."""
        self("tag", image, name)
        self("push", "--quiet", name)
        pinned = self("inspect", name, "--format", "{{index .RepoDigests 0}}")
        self("rmi", "--no-prune", name)
        return pinned

    def containers(self, *filters: str) -> list[str]:
        """Return the ids of all containers, ended ones included."""
        return self(
            "ps", "--all", "--quiet", *(word for each in filters for word in ("--filter", each))
        ).split()

    def imported(self, rootfs: Path) -> str:
        """Import a file system's archive as an image of one layer, and return its id."""
        return self("import", str(rootfs))

    def is_rid_of(self, run: str) -> None:
        """Check that the containers of a run are gone, or go within a moment."""
        deadline = time.monotonic() + 10
        while self.containers(f"label=flyte.run={run}"):
            assert time.monotonic() < deadline, f"a container of {run} is left"
            time.sleep(0.05)
