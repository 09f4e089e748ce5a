"""Running uv, which resolves and installs packages, with the user's configuration."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence

from flyte_build.errors import ImageBuildError

OF_PIP = {  # Variables of pip, and their equivalents in uv.
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS",),
    "PIP_CERT": ("SSL_CERT_FILE",),
}
_ADORNED = re.compile(r"^[^\w`(]*(?:error: |cause: )?")
_NETWORK = re.compile(
    r"Failed to (?:fetch|download)|error sending request|dns error|tcp connect|timed out|Network"
    r" connectivity is disabled",
    re.I,
)
_DENIED = re.compile(
    r"(https?://[^\s)]+)\)? (?:could not be queried due to a lack of valid|returned a 403)|40[13]"
    r" [A-Z]\w+\)? for url \((http\S+)\)"
)
_LOGIN = re.compile(r"UV_INDEX_.+_(?:USERNAME|PASSWORD)\Z")
_SHOWN = 1500  # Characters of uv's explanations in messages.
# Variables that are removed: our arguments alone decide these.
_DECIDED = (
    "VIRTUAL_ENV",
    "UV_PROJECT_ENVIRONMENT",
    "UV_PYTHON",
    "UV_SYSTEM_PYTHON",
    "UV_TARGET",
    "UV_PREFIX",
)


class Uv:
    """Runner of uv processes; `stop` may be called from another thread.

    `is_stopped` is true from the call of `stop` on.
    """

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self.is_stopped = False

    def run(self, arguments: Sequence[str], folder: str) -> subprocess.CompletedProcess[bytes]:
        """Run uv in `folder` without progress output, and wait for its end.

        Raises `ImageBuildError` if uv is not installed.
        """
        binary = find_uv()
        command, environment = [binary, *arguments], _environment(os.environ)
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
        ) as process:
            self._running.add(process)
            try:
                if self.is_stopped:
                    process.kill()
                output, errors = process.communicate()
            except BaseException:
                process.kill()
                raise
            finally:
                self._running.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def stop(self) -> None:
        """Kill the running processes, and all that are started later."""
        self.is_stopped = True
        for process in tuple(self._running):
            process.kill()


def find_uv() -> str:
    """Return the path of uv.

    Raises `ImageBuildError` if it is not installed.
    """
    import uv

    try:
        return uv.find_uv_bin()
    except FileNotFoundError as error:
        raise ImageBuildError(
            "Cannot find uv, which resolves packages",
            why=str(error),
            hint="Install it with `pip install uv`.",
        ) from None


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for uv; pip's become their uv equivalents unless those are set."""
    found = {name: value for name, value in variables.items() if name not in _DECIDED}
    for name, names in OF_PIP.items():
        if name in found and not any(each in found for each in names):
            found[names[-1]] = (
                ",".join(found[name].split()) if name == "PIP_FIND_LINKS" else found[name]
            )
    import ssl

    if "SSL_CERT_FILE" not in found and (bundle := ssl.get_default_verify_paths().cafile):
        # The machine's trusted certificates instead of uv's bundled ones: they may include those
        # of a company's proxy.
        found["SSL_CERT_FILE"] = bundle
    return {**found, "NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PREVIEW": "1"}


def indexes(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables about package indexes and access to them, under uv's names."""
    # Excluded: its values are directories of this machine.
    names = {name for pair in OF_PIP.values() for name in pair} - {"UV_FIND_LINKS"}
    proxies = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    return {
        name: value
        for name, value in _environment(variables).items()
        if name in names or name.lower() in proxies or _LOGIN.match(name)
    }


def explained(errors: bytes) -> str:
    """Return uv's error output without decoration and credentials, and shortened."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", errors.decode(errors="replace")).splitlines()
    text = " ".join(
        " ".join(
            _ADORNED.sub("", line) for line in lines if not line.startswith("warning:")
        ).split()
    )
    text = re.sub(r"://[^/\s@]+@", "://", text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def denied(text: str) -> str:
    """Return the URL that requires credentials if that is why uv failed, else ""."""
    found = _DENIED.search(text)
    return found[1] or found[2] if found else ""


def is_about_network(text: str) -> bool:
    """Whether uv failed because a download or a request did."""
    return "Hash mismatch" not in text and _NETWORK.search(text) is not None
