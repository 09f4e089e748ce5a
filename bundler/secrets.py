"""Files that are refused because they look like credentials, at any depth, by name or by content."""

from __future__ import annotations

import re

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
    if name.startswith(".env") or name in _NAMES or name.endswith(_ENDINGS) or _FOLDERS.search(path):
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
