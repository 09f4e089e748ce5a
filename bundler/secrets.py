"""Files that are refused because they look like credentials, at any depth, by name or by content."""

from __future__ import annotations

import re
from collections.abc import Container

from flyte_build.errors import SecretRefused

_NAMES = frozenset(
    (
        ".git-credentials",
        ".htpasswd",
        ".my.cnf",
        ".netrc",
        ".pgpass",
        ".pypirc",
        "_netrc",
        "application_default_credentials.json",
        "credentials.json",
        "netrc",
    )
)
_ENDINGS = (".p12", ".pfx", ".jks", ".keystore", ".ppk", ".kdbx")
_FOLDERS = re.compile(r"(^|/)\.(aws/|kube/|azure/|ssh/|gnupg/|config/gcloud/|docker/config\.json$)")
# A key, not the mere words: base64 follows, after a line break that may be written as an escape, and RFC 1421 headers.
_KEY = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\\[rn]|\s)+"
    rb"(?:[A-Za-z-]+: [^\n]{0,200}(?:\\[rn]|\s)+)*[A-Za-z0-9+/=]{40}"
)
_SERVICE_ACCOUNT = re.compile(rb'"type"\s*:\s*"service_account"')
_INDEX_TOKEN = re.compile(
    rb"(?m)^\s*(?://[^\s:]+:)?_(?:authToken|auth|password)\s*=\s*[^\s$]{8}|^\s*(?:extra-)?index-url\s*=\s*https?://[^/\s$]+:[^/\s$]+@"
)
_OVERLAP = 4096


def by_name(path: str) -> str:
    """What kind of secret a file of this path (relative, with `/`) is, or ""."""
    name = path.rpartition("/")[2]
    hidden = path.startswith(".") or "/." in path
    if name in _NAMES or name.endswith(_ENDINGS) or (hidden and (name.startswith(".env") or _FOLDERS.search(path))):
        return "a file of this name holds credentials"
    return ""


def by_content(path: str, data: bytes) -> str:
    """What kind of secret these bytes are, or ""."""
    if b"PRIVATE KEY" in data and _KEY.search(data):
        return "it holds a private key"
    if path.endswith(".json") and b"private_key" in data and _SERVICE_ACCOUNT.search(data):
        return "it is a service account's key"
    name = path.rpartition("/")[2]
    if name in (".npmrc", "pip.conf", "pip.ini", ".condarc") and _INDEX_TOKEN.search(data):
        return "it holds a package index's credentials"
    return ""


class ContentWatch:
    """`by_content` for a file that is read in pieces: `found` says what was found so far."""

    def __init__(self, path: str) -> None:
        self.found = ""
        self._path, self._tail = path, b""

    def feed(self, piece: bytes) -> None:
        """Look at the next piece, together with the end of the one before."""
        if not self.found:
            self.found = by_content(self._path, self._tail + piece)
            self._tail = piece[-_OVERLAP:]


def refuse(found: list[tuple[str, str]], allowed: Container[str]) -> None:
    """Raise `SecretRefused` if any of the files (path, what kind of secret it is) is not allowed."""
    found = sorted((path, why) for path, why in found if path not in allowed)
    if found:
        listed = "".join(f"\n  {path}: {why}" for path, why in found[:20]) + ("\n  ..." if len(found) > 20 else "")
        raise SecretRefused(
            f"{len(found)} {'file' if len(found) == 1 else 'files'} with secrets would have gone into the bundle:{listed}",
            why="A bundle is kept in caches and registries, where everyone who reads them reads it.",
            hint=f"Add `/{found[0][0]}` to `.flyteignore`; or, if it may be shared, allow it in flyte.toml:\n"
            f'  bundle.allow_secrets = ["{found[0][0]}"]',
        )
