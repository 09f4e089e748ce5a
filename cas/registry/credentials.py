"""Registry credentials, shared with docker and most other tools through docker's `config.json`.

They are read from `DOCKER_AUTH_CONFIG` (the text of such a file, as CI systems provide it), and
from the file in `DOCKER_CONFIG` or `~/.docker`, or the credential helper that it configures. They
are written to that file or helper only (docs.docker.com, "docker login", "Credential helper
protocol").
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from typing import Any

from flyte_build.cas.atomic import replace_file
from flyte_build.errors import RegistryDenied, UsageError

from .name import HUB

_TEXT = "DOCKER_AUTH_CONFIG"
# Docker Hub's host in such files, where it is written `https://index.docker.io/v1/`.
_HUB = "index.docker.io"
_HOSTS = {HUB: _HUB}
_PATHS = frozenset({"", "v1", "v2"})  # Paths that may follow the host in the name of an entry.


class _Malformed(Exception):
    """Malformed credentials; the message says where they are, and shows nothing of them."""


def find(host: str) -> str | None:
    """Return the basic credentials for a host (base64), or None.

    Raises `RegistryDenied` if the file or the helper's output cannot be read.
    """
    host = _HOSTS.get(host, host)
    try:
        if text := os.environ.get(_TEXT):
            found = _entry(_parse(text, _TEXT), host, _TEXT)
            if found:
                return found
        config = _read()
        helper = _helper(config, host)
        return (_of_helper(helper, host) if helper else None) or _entry(config, host, _path())
    except _Malformed as error:
        raise RegistryDenied(
            f"Cannot read the credentials for {host}",
            why=f"{error}.",
            hint="Fix it, or move it away and use `flyte registry login`.",
        ) from None


def keep(host: str, user: str, password: str) -> str:
    """Store credentials for a host, and return where. Raises `UsageError` if that fails."""
    config, host = _read_to_write(), _HOSTS.get(host, host)
    if helper := _helper(config, host):
        _ask_helper(
            helper,
            "store",
            json.dumps({"ServerURL": _server(host), "Username": user, "Secret": password}),
        )
        return f"docker-credential-{helper}"
    config["auths"] = {
        **_object(config, "auths", _path()),
        _server(host): {"auth": encoded(user, password)},
    }
    _write(config)
    return _path()


def forget(host: str) -> bool:
    """Delete the credentials for a host, and return whether there were any.

    With a credential helper, this is always true. Raises `UsageError` if it fails.
    """
    config, host = _read_to_write(), _HOSTS.get(host, host)
    if helper := _helper(config, host):
        _ask_helper(helper, "erase", _server(host))
        return True
    auths = _object(config, "auths", _path())
    names = [name for name in auths if _is_for(name, host)]
    if names:
        config["auths"] = {name: entry for name, entry in auths.items() if name not in names}
        _write(config)
    return bool(names)


def encoded(user: str, password: str) -> str:
    """Encode basic credentials (RFC 7617, 2), without the word "Basic"."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def _path() -> str:
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return f"{folder}/config.json"


def _read() -> dict[str, Any]:
    """Read docker's configuration; it is empty if there is no file."""
    try:
        with open(_path(), "rb") as file:
            return _parse(file.read(), _path())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _Malformed(f"Cannot read {_path()}: {error.strerror}") from None


def _read_to_write() -> dict[str, Any]:
    try:
        config = _read()
        for name in ("auths", "credHelpers"):
            _object(config, name, _path())
        return config
    except _Malformed as error:
        raise UsageError(f"{error}", hint="Fix it, or move it away.") from None


def _write(config: dict[str, Any]) -> None:
    path = os.path.realpath(_path())
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        replace_file(path, json.dumps(config, indent=4).encode(), mode=0o600, keep_mode=False)
    except OSError as error:
        raise UsageError(f"Cannot write {path}", why=f"{error.strerror}.") from None


def _parse(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _Malformed(f"{where} is not valid JSON") from None
    if not isinstance(document, dict):
        raise _Malformed(f"{where} is not a JSON object")
    return document


def _object(config: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    """Return an object in a document; it is empty if it is missing or null."""
    found = config.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _Malformed(f"`{name}` in {where} is not a JSON object")
    return found


def _entry(config: dict[str, Any], host: str, where: str) -> str | None:
    """Return the credentials that a document holds for a host, or None."""
    auths = _object(config, "auths", where)
    for name in sorted(
        (name for name in auths if _is_for(name, host)), key=lambda name: name != host
    ):
        entry = auths[name]
        if entry is not None and not isinstance(entry, dict):
            raise _Malformed(f"The entry for {name} in {where} is not a JSON object")
        if entry and (auth := entry.get("auth")):
            return _checked(auth, f"`auth` for {name} in {where}")
        if entry and (user := entry.get("username")) and (password := entry.get("password")):
            return encoded(str(user), str(password))
    return None


def _is_for(name: str, host: str) -> bool:
    """Whether an entry is for a host; older tools name entries by URL."""
    found, _, path = name.removeprefix("https://").removeprefix("http://").partition("/")
    return found == host and path.rstrip("/") in _PATHS


def _server(host: str) -> str:
    """Return the name of a host's entry."""
    return f"https://{host}/v1/" if host == _HUB else host


def _checked(auth: object, what: str) -> str:
    """Return basic credentials in the form for sending, without line breaks."""
    try:
        pair = (
            base64.b64decode(auth.replace("\r", "").replace("\n", ""), validate=True)
            if isinstance(auth, str)
            else b""
        )
    except ValueError:
        pair = b""
    if b":" not in pair:
        raise _Malformed(f"{what} is not `user:password` in base64")
    return base64.b64encode(pair).decode()


def _helper(config: dict[str, Any], host: str) -> str | None:
    """Return the name of the credential helper for a host, or None."""
    helpers = _object(config, "credHelpers", _path())
    found = helpers.get(host) or helpers.get(_server(host)) or config.get("credsStore")
    return str(found) if found else None


def _of_helper(helper: str, host: str) -> str | None:
    """Return the credentials that a helper has for a host; None if the helper fails."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=_server(host).encode(), capture_output=True, check=False
        )
    except (OSError, ValueError):
        raise _Malformed(f"Cannot run {program}, which {_path()} configures") from None
    if done.returncode:
        return None
    found = _parse(done.stdout, f"The output of {program}")
    user, secret = found.get("Username"), found.get("Secret")
    if not isinstance(user, str) or not isinstance(secret, str):
        raise _Malformed(f"The output of {program} has no Username and Secret")
    return encoded(user, secret)


def _ask_helper(helper: str, verb: str, text: str) -> None:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb], input=text.encode(), capture_output=True, check=False
        )
    except (OSError, ValueError):
        raise UsageError(
            f"Cannot run {program}", why=f"{_path()} configures it as credential helper."
        ) from None
    if done.returncode:
        raise UsageError(f"{program} {verb} failed", why=f"Its exit code is {done.returncode}.")
