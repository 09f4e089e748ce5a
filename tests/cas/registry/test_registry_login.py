"""`flyte registry login` and `logout`: checked against the registry, stored where docker does."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import FLYTE, Shell
from tests.support.listening import Answer, Exchange, Headers, Listener
from tests.support.registries import Server, serve

LOGIN = ("ann", "s3cret-w0rd")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry that wants a password."""
    with serve(tmp_path_factory.mktemp("closed"), login=LOGIN) as server:
        yield server


def log_in(
    flyte: Shell,
    host: str,
    exit_code: int,
    password: str = LOGIN[1],
    user: str = LOGIN[0],
    json: bool = False,
) -> str:
    """Log in, and return everything that is printed."""
    command = [
        FLYTE,
        *(["-of", "json"] if json else []),
        "registry",
        "login",
        "-u",
        user,
        "--password-stdin",
        host,
    ]
    done = subprocess.run(
        command,
        input=password + "\n",
        env=flyte.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    assert password not in done.stdout + done.stderr
    return done.stdout + done.stderr


def config_of(flyte: Shell) -> Path:
    return flyte.home / ".docker" / "config.json"


def test_login_and_logout(flyte: Shell, closed: Server) -> None:
    """A login is kept in a file that only its owner reads, used at once, and ended by a logout."""
    place, host, config = closed.repository("x/y"), closed.host, config_of(flyte)
    assert "registry login" in flyte("run", "--registry", place, "tasks.py", "hello").stderr
    log_in(flyte, host, 0)
    assert config.stat().st_mode & 0o777 == 0o600
    assert (
        f"published 1 to {place}" in flyte("run", "--registry", place, "tasks.py", "hello").stderr
    )
    assert json.loads(config.read_text())["auths"].keys() == {host}
    assert (
        "Logged out" in flyte("registry", "logout", host).stdout
        and json.loads(config.read_text())["auths"] == {}
    )
    assert "no credentials" in flyte("registry", "logout", host).stdout
    assert "registry login" in flyte("cache", "push", "--registry", place, exit_code=3).stderr


def test_a_wrong_password_is_said_and_not_kept(flyte: Shell, closed: Server) -> None:
    said = log_in(flyte, closed.host, 3, "incorrect")
    assert f"error: {closed.host} denied access" in said and "Check the user name" in said
    assert "/any" not in said and "flyte registry login" not in said
    assert not config_of(flyte).exists()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"currentContext": "x"}',
        '{"credsStore": ""}',
        '{"auths": null}',
        '{"auths": {"other": {"auth": "x"}}}',
    ],
)
def test_what_else_docker_keeps_there_stays(flyte: Shell, closed: Server, text: str) -> None:
    config, before = config_of(flyte), json.loads(text)
    config.parent.mkdir(parents=True)
    config.write_text(text)
    log_in(flyte, closed.host, 0)
    after = json.loads(config.read_text())
    assert after == {
        **before,
        "auths": {**(before.get("auths") or {}), closed.host: after["auths"][closed.host]},
    }
    flyte("registry", "logout", closed.host)
    assert json.loads(config.read_text()) == {**before, "auths": before.get("auths") or {}}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": []}', '{"credHelpers": 1}', '{"credsStore": "nope"}']
)
def test_a_file_that_cannot_be_understood_is_left_alone(
    flyte: Shell, closed: Server, text: str
) -> None:
    config = config_of(flyte)
    config.parent.mkdir(parents=True)
    config.write_text(text)
    assert str(config) in log_in(flyte, closed.host, 2) and config.read_text() == text


class Site(Listener):
    """A server that answers all requests alike; `wants` is its challenge, if it has one."""

    def __init__(self, status: int, headers: Headers, body: bytes, wants: str = "") -> None:
        super().__init__()
        self.status, self.headers, self.body, self.wants = status, headers, body, wants

    def respond(self, exchange: Exchange) -> Answer:
        exchange.drain()
        if self.wants and not exchange.headers["Authorization"]:
            return Answer.of(401, [("WWW-Authenticate", self.wants)], b"")
        return Answer.of(self.status, self.headers, self.body)


HTML = [("Content-Type", "text/html")]


@pytest.mark.parametrize("status", [200, 404, 401])
def test_what_is_no_registry_gets_no_password(flyte: Shell, status: int) -> None:
    with Site(status, HTML, b"<html>") as site:
        assert f"{site.host} does not respond like a registry" in log_in(flyte, site.host, 3)
        assert [request.headers["Authorization"] for request in site.requests] == [None]
    assert not config_of(flyte).exists()


def test_a_site_with_a_password_that_is_no_registry_is_not_kept(flyte: Shell) -> None:
    with Site(200, HTML, b"<html>", wants='Basic realm="x"') as site:
        assert f"{site.host} does not respond like a registry" in log_in(flyte, site.host, 3)
    assert not config_of(flyte).exists()


@pytest.mark.parametrize("headers", [[("Docker-Distribution-Api-Version", "registry/2.0")], []])
def test_a_registry_that_wants_no_login_gets_none(flyte: Shell, headers: Headers) -> None:
    with Site(200, headers, b"{}") as site:
        assert f"{site.host} requires no login; nothing was stored" in log_in(flyte, site.host, 0)
        assert json.loads(log_in(flyte, site.host, 0, json=True))["kept_in"] is None
        assert not any(request.headers["Authorization"] for request in site.requests)
    assert not config_of(flyte).exists()


def test_a_name_with_a_colon_is_refused(flyte: Shell, closed: Server) -> None:
    """A user name with a colon is refused: it could not be told from the password."""
    assert "cannot contain a colon" in log_in(flyte, closed.host, 2, user="a:b")


def test_a_host_that_is_none_is_named_as_it_was_given(flyte: Shell) -> None:
    assert "'nohost' does not name a registry" in log_in(flyte, "nohost", 2)


def test_without_a_terminal_nobody_is_asked(flyte: Shell, closed: Server) -> None:
    done = subprocess.run(
        [FLYTE, "registry", "login", "-u", "ann", closed.host],
        input="x\n",
        env=flyte.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        done.returncode == 2
        and f"flyte registry login -u ann --password-stdin {closed.host}" in done.stderr
    )
    assert "Warning" not in done.stderr


def test_an_interrupt_at_the_question_says_no_more_than_that(flyte: Shell, closed: Server) -> None:
    ours, theirs = pty.openpty()
    command = [FLYTE, "registry", "login", "-u", "ann", closed.host]
    try:
        with subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=flyte.environment,
            start_new_session=True,
        ) as process:
            said = b""
            while b"Password" not in said:
                said += os.read(ours, 1000)
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
        said = os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"Interrupted" in said and b"cached" not in said
