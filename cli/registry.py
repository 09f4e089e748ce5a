"""`flyte registry`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from flyte_build.errors import UsageError

from .console import Console

if TYPE_CHECKING:
    from flyte_build.cas.registry.name import RepositoryName


@click.group()
def registry() -> None:
    """Credentials for registries."""


@registry.command("login")
@click.option("-u", "--username", help="The user's name; asked for if it is not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password or token from standard input.")
@click.argument("host")
@click.pass_obj
def login(console: Console, host: str, username: str | None, password_stdin: bool) -> None:
    """Check credentials for the registry at HOST, and keep them where docker and other tools keep theirs."""
    from flyte_build.cas.registry import credentials
    from flyte_build.cas.registry.login import check_login

    name = _repository(host)
    if username is None:
        if password_stdin:
            raise UsageError("--password-stdin needs a user's name", hint=f"flyte registry login -u NAME --password-stdin {name.host}")
        username = click.prompt("Username", err=True)
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else click.prompt("Password", hide_input=True, err=True)
    if not username or not password:
        raise UsageError("The user's name or the password is empty")
    check_login(name, username, password)
    where = credentials.keep(name.host, username, password)
    if console.json:
        console.document({"host": name.host, "username": username, "kept_in": where})
    else:
        console.print(f"Logged in to {name.host} as {username}; the credentials are in {where}")


@registry.command("logout")
@click.argument("host")
@click.pass_obj
def logout(console: Console, host: str) -> None:
    """Forget the credentials for the registry at HOST."""
    from flyte_build.cas.registry import credentials

    name = _repository(host).host
    known = credentials.forget(name)
    if console.json:
        console.document({"host": name, "forgotten": known})
    else:
        console.print(f"Logged out of {name}" if known else f"There were no credentials for {name}")


def _repository(host: str) -> "RepositoryName":
    """Some repository of a registry; `host` may begin with a scheme. Raises `ReferenceInvalid`."""
    from flyte_build.cas.registry.name import RepositoryName

    return RepositoryName.parse(f"{host.rstrip('/')}/any")
