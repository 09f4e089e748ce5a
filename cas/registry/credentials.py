"""Credentials for registries: docker's `config.json` and credential helpers, as oras reads them, and what it leaves out.

Read are `DOCKER_AUTH_CONFIG` (the text of such a file, as CI systems give it) and the file itself, in `DOCKER_CONFIG` or `~/.docker`.
Written is the file alone, or the helper that it names (docs.docker.com, "docker login", "Credential helper protocol").
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import oras.auth.utils
import oras.main.login

from flyte_build.errors import RegistryDenied, UsageError

_TEXT = "DOCKER_AUTH_CONFIG"


def find(host: str) -> str | None:
    """The basic credentials for a host (base64), if there are any. Raises `RegistryDenied` if what holds them cannot be read."""
    from oras.auth.token import TokenAuth
    from oras.container import Container

    auth = TokenAuth()
    try:
        if text := os.environ.get(_TEXT):
            entry = json.loads(text).get("auths", {}).get(host, {})
            if entry.get("auth"):
                return str(entry["auth"])
        auth._auth_config = _read_config()
        auth.load_configs(Container(f"{host}/any"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryDenied(
            f"The credentials for {host} could not be read",
            why=f"{type(error).__name__} in {_path()}, its credential helper, or {_TEXT}.",
            hint="Mend it, or move it away and use `flyte registry login`.",
        ) from None
    found = getattr(auth, "_basic_auth", None)
    return str(found) if found else None


def keep(host: str, user: str, password: str) -> str:
    """Remember credentials for a host; gives where. Raises `UsageError` if that cannot be."""
    path = _path()
    if helper := _helper(host):
        _ask_helper(helper, "store", json.dumps({"ServerURL": host, "Username": user, "Secret": password}))
        return f"docker-credential-{helper}"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if not os.path.exists(path):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write('{"auths": {}}')
        oras.main.login.DockerClient().login(user, password, host, path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be written", why=str(error)) from None
    return path


def forget(host: str) -> bool:
    """Forget the credentials for a host, and say whether there were any."""
    if helper := _helper(host):
        _ask_helper(helper, "erase", host)
        return True
    path, config = _path(), _read_config()
    if host not in config["auths"]:
        return False
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    del document["auths"][host]
    temporary = f"{path}.{os.urandom(4).hex()}"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(document, file, indent=4)
    os.replace(temporary, path)
    return True


def _path() -> str:
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return f"{folder}/config.json"


def _read_config() -> dict[str, Any]:
    path = _path()
    empty: dict[str, Any] = {"auths": {}, "credsStore": None, "credHelpers": {}}
    if not os.path.exists(path):
        return empty
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    return {name: document.get(name) or value for name, value in empty.items()}


def _helper(host: str) -> str | None:
    try:
        config = _read_config()
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{_path()} cannot be read", why=str(error)) from None
    found = config["credHelpers"].get(host) or config["credsStore"]
    return str(found) if found else None


def _ask_helper(helper: str, verb: str, text: str) -> None:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, verb], input=text.encode(), capture_output=True, check=False)
    except OSError as error:
        raise UsageError(f"{program} cannot be run", why=str(error), hint=f"{_path()} names it.") from None
    if done.returncode:
        raise UsageError(f"{program} {verb} failed", why=f"It ended with exit code {done.returncode}.")
