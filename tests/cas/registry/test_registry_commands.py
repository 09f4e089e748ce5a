"""`flyte run` with registries that stall, want credentials or lie.

The task runs, and no password is found anywhere.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from tests.support.caches import opened
from tests.support.clients import LOGIN, docker_config, no_settings  # noqa: F401
from tests.support.command import Shell, states
from tests.support.faults import FaultProxy
from tests.support.registries import Server, forward_proxy, serve

SECRETS = (LOGIN[1], base64.b64encode(":".join(LOGIN).encode()).decode())


@pytest.fixture
def other(flyte: Shell, tmp_path: Path) -> Iterator[Shell]:
    """Another machine with the same project."""
    yield Shell(flyte.project, tmp_path / "other")
    for folder, _, _ in os.walk(tmp_path / "other"):
        os.chmod(folder, 0o700)


def holds_secret(folder: Path) -> list[str]:
    """Return the files whose name or bytes hold a password, plain or encoded."""
    found = []
    for path in folder.rglob("*"):
        data = os.fsencode(path.relative_to(folder)) + (
            path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        )
        if any(secret.encode() in data for secret in SECRETS):
            found.append(str(path))
    return found


def sentences(stderr: str, place: str) -> list[str]:
    return [line for line in stderr.splitlines() if place in line]


@pytest.mark.slow
def test_a_registry_that_stalls_holds_up_a_run_only_a_little(
    flyte: Shell, registry: Server, repository: str
) -> None:
    """A registry that stalls is asked at most twice and reported once.

    One request is for the lookup, one for publishing. The next run publishes the artifacts.
    """
    with FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        proxy.on(".*", times=inf).stalls(600)
        done = flyte("run", "--registry", place, "tasks.py", "hello")
        assert "Hello, World!" in done.stdout
        assert len(proxy.requests) <= 2
        assert (
            len([line for line in sentences(done.stderr, place) if "does not respond" in line]) == 1
        )
        proxy.clear()
        is_back(flyte)
        flyte("run", "--registry", place, "tasks.py", "hello")
        assert proxy.seen("PUT", "/manifests/record.")


@pytest.mark.slow
def test_a_registry_that_is_down_is_said_in_one_sentence(
    flyte: Shell, registry: Server, repository: str
) -> None:
    with FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        with proxy.down():
            done = flyte("run", "--registry", place, "tasks.py", "hello")
        assert "Hello, World!" in done.stdout and done.stderr.count(place) == 1
        is_back(flyte)
        flyte("run", "--registry", place, "tasks.py", "hello")
        assert proxy.seen("PUT", "/manifests/record.")
        proxy.requests.clear()
        flyte("run", "--registry", place, "tasks.py", "hello")
        assert proxy.requests == []


def is_back(machine: Shell) -> None:
    """Make a machine forget that any registry was ever away."""
    with opened(machine.home / "cache") as cache:
        cache.database.execute("DELETE FROM absences")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["password", "tokens"])
def test_a_password_is_nowhere(flyte: Shell, other: Shell, tmp_path: Path, kind: str) -> None:
    """No password is printed, stored or published.

    That holds when it is right, when it is wrong, and when the registry fails.
    """
    with (
        serve(tmp_path / "registry", login=LOGIN, token=kind == "tokens") as server,
        FaultProxy(server.url) as proxy,
    ):
        helper = tmp_path / "bin" / "docker-credential-test"
        helper.parent.mkdir()
        called = tmp_path / "called"
        helper.write_text(
            f'#!/bin/sh\necho "$@" >> {called}\necho'
            f" '{json.dumps({'Username': LOGIN[0], 'Secret': LOGIN[1]})}'\n"
        )
        helper.chmod(0o755)
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker" / "config.json").write_text(
            json.dumps({"credHelpers": {proxy.host: "test"}})
        )
        ways = (
            {
                "DOCKER_CONFIG": str(tmp_path / "docker"),
                "PATH": f"{helper.parent}:{os.environ['PATH']}",
            },
            {"DOCKER_AUTH_CONFIG": docker_config(proxy.host)},
        )
        output = ""
        place = proxy.repository("team/cache")
        for number, (shell, way) in enumerate(zip((flyte, other), ways, strict=True)):
            done = shell("-of", "json", "run", "--registry", place, "tasks.py", "hello", env=way)
            result = json.loads(done.stdout)
            assert bool(result["counters"]["bytes_sent"]) == (number == 0) and not sentences(
                done.stderr, "denied"
            )
            output += done.stdout + done.stderr
        wrong = {"DOCKER_AUTH_CONFIG": docker_config(proxy.host, (LOGIN[0], LOGIN[1] + "-not"))}
        proxy.on("GET", times=inf).answers(500, body=b"<html>")
        for way in (ways[1], wrong):
            with (flyte.project / "tasks.py").open("a") as file:
                file.write("# changed\n")
            is_back(flyte)
            done = flyte("run", "--registry", place, "tasks.py", "hello", env=way)
            assert len(sentences(done.stderr, place)) == 1
            output += done.stdout + done.stderr
            proxy.clear()
        output += flyte("get", "config").stdout
        assert set(called.read_text().splitlines()) == {"get"}
        assert not any(secret in output for secret in SECRETS)
        assert (
            holds_secret(flyte.home)
            == holds_secret(other.home)
            == holds_secret(flyte.project)
            == []
        )
        assert holds_secret(server.folder) == []


@pytest.mark.parametrize(
    "text",
    [
        "https://ann:hunter2secret@registry.example.com/team",
        "ann:hunter2secret@registry.example.com/team",
    ],
)
def test_a_password_in_a_name_is_refused_and_not_shown(flyte: Shell, text: str) -> None:
    for done in (
        flyte("run", "--registry", text, "tasks.py", "hello", exit_code=2),
        flyte("run", "--cache-read", text, "tasks.py", "hello", exit_code=2),
        flyte("run", "tasks.py", "hello", exit_code=2, env={"FLYTE_REGISTRY": text}),
    ):
        assert "hunter2" not in done.stdout + done.stderr
        assert "flyte registry login" in done.stderr
    assert holds_secret(flyte.home) == []


def test_a_pull_request_reads_the_cache_of_main_and_cannot_write_it(
    flyte: Shell, other: Shell, tmp_path: Path
) -> None:
    with serve(tmp_path / "registry", login=LOGIN, token=True) as server:
        assert server.tokens is not None
        login = {"DOCKER_AUTH_CONFIG": docker_config(server.host)}
        main, own = server.repository("team/main"), server.repository("team/pr")
        flyte("run", "--registry", main, "tasks.py", "hello", env=login)
        server.tokens.allowed["team/main"] = {"pull"}
        found = other.json(
            "run",
            "--cache-read",
            main,
            "--cache-write",
            own,
            "tasks.py",
            "hello",
            env=login,
        )
        assert found["counters"]["layers_made"] == 0 and states(found)["bundle"] == "cached"
        (flyte.project / "tasks.py").write_text(
            (flyte.project / "tasks.py").read_text() + "# changed\n"
        )
        done = other("run", "--registry", main, "tasks.py", "hello", env=login)
        assert (
            "Hello, World!" in done.stdout
            and len(sentences(done.stderr, f"{main} denied access")) == 1
        )
        changed = other.json(
            "run",
            "--cache-read",
            main,
            "--cache-write",
            own,
            "tasks.py",
            "hello",
            env=login,
        )
        assert changed["counters"]["bytes_sent"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["flip", "wrong-record", "missing", "endless", "refused", "reset"]
)
def test_what_a_registry_does_wrong_costs_a_run_nothing_but_time(
    flyte: Shell, other: Shell, registry: Server, repository: str, fault: str
) -> None:
    """A faulty registry only costs time: the bundle is built locally, or fetched once more."""
    flyte("run", "--registry", repository, "tasks.py", "hello")
    with FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        blobs = proxy.on("GET", "/blobs/", inf if fault != "reset" else 1)
        match fault:
            case "flip":
                blobs.flips()
            case "wrong-record":
                proxy.on("GET", "/manifests/record", inf).answers(200, body=b'{"manifests": []}')
            case "missing":
                blobs.answers(404)
            case "endless":
                blobs.answers(200, body=(bytes(1 << 16) for _ in range(1 << 20)))
            case "refused":
                blobs.answers(403)
            case "reset":
                blobs.end_after(10)
        result = json.loads(
            (done := other("-of", "json", "run", "--registry", place, "tasks.py", "hello")).stdout
        )
        assert result["outputs"] and bool(result["counters"]["layers_made"]) == (fault != "reset")
        assert (
            len(
                [
                    line
                    for line in sentences(done.stderr, place)
                    if not line.startswith("published ")
                ]
            )
            <= 1
        )


def test_runs_go_through_a_proxy_and_trust_a_private_authority(
    flyte: Shell, other: Shell, tmp_path: Path
) -> None:
    with (
        serve(tmp_path / "registry", tls=True) as server,
        forward_proxy(tmp_path / "proxy") as proxy,
    ):
        way = {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(server.ca)}
        place = server.repository("team/cache")
        flyte("run", "--registry", place, "tasks.py", "hello", env=way)
        found = json.loads(
            other("-of", "json", "run", "--registry", place, "tasks.py", "hello", env=way).stdout
        )
        assert found["counters"]["layers_made"] == 0
        assert any(request.startswith(f"CONNECT {server.host} ") for request in proxy.requests())
        done = Shell(flyte.project, tmp_path / "third")(
            "run", "--registry", f"https://{place}", "tasks.py", "hello"
        )
        assert "Hello, World!" in done.stdout and "Cannot verify the certificate" in done.stderr
