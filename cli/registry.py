"""`flyte registry`."""

from __future__ import annotations

import sys

import click

from flyte_build.errors import UsageError

from .console import Console
from .group import Group


@click.group(cls=Group)
def registry() -> None:
    """Manage credentials for registries."""


@registry.command("login")
@click.option("-u", "--username", help="User name (default: prompt for it).")
@click.option(
    "--password-stdin", is_flag=True, help="Read the password or token from standard input."
)
@click.argument("host")
@click.pass_obj
def login(console: Console, host: str, username: str | None, password_stdin: bool) -> None:
    """Check credentials for the registry at HOST, and store them.

    They are stored where Docker and other tools store theirs.
    """
    from flyte_build.cas.registry import credentials
    from flyte_build.cas.registry.login import check_login
    from flyte_build.cas.registry.name import RepositoryName

    name = RepositoryName.of_registry(host)
    command = f"flyte registry login -u {username or 'NAME'} --password-stdin {name.host}"
    if not password_stdin and not sys.stdin.isatty():
        raise UsageError(
            "Cannot prompt for the password: standard input is not a terminal",
            hint=f"Pass it on standard input: {command}",
        )
    if username is None:
        if password_stdin:
            raise UsageError("--password-stdin requires --username", hint=command)
        username = click.prompt("Username", err=True)
    password = (
        sys.stdin.readline().rstrip("\r\n")
        if password_stdin
        else click.prompt("Password", hide_input=True, err=True)
    )
    if not username or not password:
        raise UsageError("The user name and the password must not be empty")
    if ":" in username:
        raise UsageError(
            "A user name cannot contain a colon", hint=command.replace(username, "NAME")
        )
    where = (
        credentials.keep(name.host, username, password)
        if check_login(name, username, password)
        else None
    )
    if console.json:
        console.document({"host": name.host, "username": username, "kept_in": where})
    elif where is None:
        console.print(f"{name.host} requires no login; nothing was stored")
    else:
        console.print(f"Logged in to {name.host} as {username}; the credentials are in {where}")


@registry.command("logout")
@click.argument("host")
@click.pass_obj
def logout(console: Console, host: str) -> None:
    """Delete the credentials for the registry at HOST."""
    from flyte_build.cas.registry import credentials
    from flyte_build.cas.registry.name import RepositoryName

    name = RepositoryName.of_registry(host).host
    known = credentials.forget(name)
    if console.json:
        console.document({"host": name, "forgotten": known})
    else:
        console.print(f"Logged out of {name}" if known else f"There were no credentials for {name}")
