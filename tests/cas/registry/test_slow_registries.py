"""Slow, endless or ever-changing registries: commands end, with the right result.

They send few requests.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from math import inf
from pathlib import Path

import pytest

from flyte_build.cas.registry.descriptor import INDEX
from flyte_build.errors import RegistryCorrupt
from tests.cas.registry.test_bad_fetches import Good, check, good, machine  # noqa: F401  # Fixtures.
from tests.cas.registry.test_shared_cache import bundle_of
from tests.support.clients import repository_of
from tests.support.command import FLYTE, Shell
from tests.support.faults import FaultProxy
from tests.support.forgery import Forger
from tests.support.listening import DRIPS, HANDSHAKE, OK, Answer, dripping
from tests.support.registries import Server

pytestmark = pytest.mark.slow


def run(shell: Shell, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that must end within a time limit."""
    return subprocess.run(
        [FLYTE, *arguments],
        cwd=shell.project,
        env=shell.environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("data", DRIPS.values(), ids=DRIPS)
def test_a_look_up_that_drips(flyte: Shell, registry: Server, repository: str, data: bytes) -> None:
    """A registry that sends one byte at a time is given up and reported, without a long wait.

    The slow part may be anywhere in the answer.
    """
    with FaultProxy(registry.url) as proxy:
        proxy.on(".*", times=inf).drips(data)
        done = run(
            flyte,
            "run",
            "--registry",
            proxy.repository(repository.partition("/")[2]),
            "tasks.py",
            "hello",
        )
        assert (done.returncode, done.stdout) == (
            0,
            "Hello, World!\n",
        ) and "This command continues without it" in done.stderr
        assert len(proxy.requests) <= 2


def test_a_token_that_drips(flyte: Shell, registry: Server, repository: str) -> None:
    """A token server that sends one byte at a time is given up and reported."""
    with FaultProxy(registry.url) as proxy:
        proxy.on("GET", "/token", times=inf).drips(DRIPS["body"])
        challenge = f'Bearer realm="{proxy.url}/token",service="x",scope="repository:x:pull"'
        proxy.on("GET", "/manifests/", times=inf).answers(401, {"WWW-Authenticate": challenge})
        done = run(
            flyte,
            "run",
            "--registry",
            proxy.repository(repository.partition("/")[2]),
            "tasks.py",
            "hello",
        )
        assert (done.returncode, done.stdout) == (
            0,
            "Hello, World!\n",
        ) and "This command continues without it" in done.stderr
        assert len(proxy.requests) <= 4


def test_a_handshake_that_drips(flyte: Shell) -> None:
    """A TLS handshake that comes one byte at a time is given up and reported."""
    with dripping(HANDSHAKE) as host:
        done = run(flyte, "run", "--registry", f"https://{host}/x", "tasks.py", "hello")
    assert (done.returncode, done.stdout) == (
        0,
        "Hello, World!\n",
    ) and "This command continues without it" in done.stderr


def test_a_proxy_that_drips(flyte: Shell) -> None:
    """A proxy that answers one byte at a time is given up and reported."""
    with dripping(DRIPS["headers"]) as host:
        behind = replace(flyte, variables={"https_proxy": f"http://{host}", "no_proxy": ""})
        done = run(
            behind, "run", "--registry", "https://registry.example.com/x", "tasks.py", "hello"
        )
    assert (done.returncode, done.stdout) == (
        0,
        "Hello, World!\n",
    ) and "This command continues without it" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        lambda proxy: proxy.on("PUT", "/blobs/", times=inf).stalls(600),
        lambda proxy: proxy.on("PUT", "/blobs/", times=inf).drips(DRIPS["headers"]),
    ],
    ids=["silent", "drips"],
)
def test_an_upload_that_is_never_answered(
    flyte: Shell, registry: Server, repository: str, fault: Callable[[FaultProxy], None]
) -> None:
    """An upload without an answer does not delay the result; each blob is sent at most twice.

    A later command publishes the blobs.
    """
    with FaultProxy(registry.url) as proxy:
        fault(proxy)
        done = run(
            flyte,
            "run",
            "--registry",
            proxy.repository(repository.partition("/")[2]),
            "tasks.py",
            "hello",
        )
        assert (done.returncode, done.stdout) == (
            0,
            "Hello, World!\n",
        ) and "a later command publishes" in done.stderr
        assert len(proxy.seen("PUT")) <= 2 * 3


@pytest.mark.slow
def test_a_download_that_drips(
    flyte: Shell, registry: Server, repository: str, tmp_path: Path
) -> None:
    """If a download is too slow, the bundle is built locally instead."""
    flyte("run", "--registry", repository, "tasks.py", "hello")
    with FaultProxy(registry.url) as proxy:
        proxy.on("GET", "/blobs/", times=inf).drips(OK + b"Content-Length: 100000000\r\n\r\n")
        other = Shell(flyte.project, tmp_path / "other")
        done = run(
            other,
            "-of",
            "json",
            "run",
            "--registry",
            proxy.repository(repository.partition("/")[2]),
            "tasks.py",
            "hello",
        )
        assert (
            bundle_of(json.loads(done.stdout))["from"] == "made"
            and len(proxy.seen("GET", "/blobs/")) <= 8
        )


def test_a_tag_that_is_another_one_at_each_look(
    flyte: Shell, registry: Server, repository: str
) -> None:
    """Deploying to a tag that changes at each look fails after a few looks."""
    number = count()

    def other(answer: Answer) -> Answer:
        if answer.status != 200:
            return answer
        document = json.loads(b"".join(answer.body))
        document["annotations"]["org.opencontainers.image.created"] = (
            f"2026-01-01T00:00:{next(number) % 60:02}.000000Z"
        )
        return Answer.of(200, [("Content-Type", INDEX)], json.dumps(document).encode())

    with FaultProxy(registry.url) as proxy:
        proxy.on("GET", r"manifests/default\.development\.t\.v1", times=inf).changes(other)
        place = proxy.repository(repository.partition("/")[2])
        done = run(flyte, "deploy", "--registry", place, "--version", "v1", "tasks.py")
        assert done.returncode == 3 and "keeps changing" in done.stderr
        assert len(proxy.requests) < 120


def test_tags_that_lead_on_without_end(registry: Server) -> None:
    """A list of tags whose pages lead to ever new addresses, without new tags, is refused."""
    with FaultProxy(registry.url) as proxy:
        for number in range(2):
            proxy.on("GET", "tags/list").answers(
                200,
                {"Link": f'</v2/x/tags/list?n=1&last={number}>; rel="next"'},
                b'{"tags": ["a"]}',
            )
        with pytest.raises(RegistryCorrupt, match=r"The list of tags .* does not end"):
            repository_of(proxy.repository("x")).tags()


ODD: dict[str, Callable[[Path], object]] = {
    "pipe": lambda path: os.mkfifo(path),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
@pytest.mark.parametrize("which", ["oci-layout", "index.json", "record", "manifest", "pack"])
def test_what_is_no_file_in_a_folder(
    machine: Shell,  # noqa: F811
    good: Good,  # noqa: F811
    tmp_path: Path,
    odd: Callable[[Path], object],
    which: str,
) -> None:
    """Pipes and devices in the place of files in a layout are never waited for."""
    forger = Forger(good.shared, tmp_path / "shared")
    blobs = {
        "record": forger.layout.entries()[forger.tag]["digest"],
        "manifest": forger.record["manifests"][0]["digest"],
        "pack": forger.manifest["layers"][-1]["digest"],
    }
    path = forger.layout.blob(blobs[which]) if which in blobs else tmp_path / "shared" / which
    path.unlink()
    odd(path)
    check(machine, good, "run", f"oci:{tmp_path}/shared")
