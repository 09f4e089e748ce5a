"""A real Docker Engine, and images for it that are made here: no image is pulled from elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.needs import need

_WAIT = 60.0  # Seconds for an engine to start.


def _answers(host: str) -> bool:
    return (
        subprocess.run(
            ["docker", "info"], capture_output=True, env={**os.environ, "DOCKER_HOST": host}
        ).returncode
        == 0
    )


@contextmanager
def docker_engine() -> Iterator[str]:
    """Yield the address of a running engine, or of a new one, which ends with the `with` block."""
    need("docker")
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if _answers(host):
        yield host
        return
    if os.geteuid() != 0:
        pytest.skip("no Docker Engine answers, and starting one needs root")
    with (
        tempfile.TemporaryDirectory(prefix="flyte-docker-", ignore_cleanup_errors=True) as folder,
        open(f"{folder}/log", "wb") as log,
    ):
        host = f"unix://{folder}/docker.sock"
        options = [f"--{name}={folder}/{name}" for name in ("data-root", "exec-root", "pidfile")]
        server = subprocess.Popen(["dockerd", "--host", host, *options], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + _WAIT
            while not _answers(host):
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(
                        "dockerd did not start:\n" + Path(f"{folder}/log").read_text()[-2000:],
                        pytrace=False,
                    )
                time.sleep(0.1)
            yield host
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


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
