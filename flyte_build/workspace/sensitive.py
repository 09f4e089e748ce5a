"""Detection of files that look like credentials, by name or content, at any depth."""

from __future__ import annotations

import re
from collections.abc import Container

from flyte_build.errors import SecretRefused

from . import secret_rules
from .secret_rules import Rule

_OVERLAP = 4096
# Bytes of a file to which the rules for its kind apply; private keys are searched for everywhere.
_LOOKED_AT = 4 << 20


def by_name(path: str) -> str:
    """Return why a file with this path (relative, with `/`) looks like a secret, or ""."""
    name = path.rpartition("/")[2].lower()
    if name in secret_rules.NAMES or name.endswith(secret_rules.ENDINGS):
        return "a file with this name contains credentials"
    if (path[:1] == "." or "/." in path) and _is_hidden_secret(path, name):
        return "a file with this name contains credentials"
    return ""


def _is_hidden_secret(path: str, name: str) -> bool:
    is_environment = name.startswith(".env") and not re.search(secret_rules.TEMPLATE, name)
    return is_environment or re.search(secret_rules.FOLDERS, path) is not None


def by_content(path: str, data: bytes) -> str:
    """Return why the content of a file with this path looks like a secret, or ""."""
    return _private_key(data) or _by_kind(path, data[:_LOOKED_AT])


def _private_key(data: bytes) -> str:
    return (
        "it contains a private key"
        if b"PRIVATE KEY" in data and re.search(secret_rules.PRIVATE_KEY, data)
        else ""
    )


def _by_kind(path: str, data: bytes) -> str:
    name = path.rpartition("/")[2].lower()
    for rule in _rules(path, name):
        for (
            needle
        ) in rule.needles:  # A loop is faster than a generator: this runs for each file and rule.
            if needle in data:
                if _matches(rule, data, name):
                    return rule.why
                break
    return ""


def _rules(path: str, name: str) -> tuple[Rule, ...]:
    """Return the rules for a file of this path and name (lower case)."""
    if name in secret_rules.NAMED:
        return secret_rules.NAMED[name]
    ending = name.rpartition(".")[2] if "." in name else ""
    if ending == "py":
        return ()
    if name.startswith((".env", "dockerfile")) or ".envs/" in path:
        return secret_rules.ENVIRONMENT
    if ending in ("txt", "in") and re.search(secret_rules.REQUIREMENTS, path):
        return secret_rules.REQUIREMENT
    return secret_rules.KINDS.get(ending, ())


def _matches(rule: Rule, data: bytes, name: str) -> bool:
    if rule.guess and re.search(secret_rules.TEMPLATE, name):
        return False
    return any(
        not secret_rules.is_placeholder(match[match.lastindex or 0], guess=rule.guess)
        for match in re.finditer(rule.pattern, data)
    )


class ContentWatch:
    """Incremental `by_content` for a file that is read in pieces; `found` is the reason so far."""

    def __init__(self, path: str) -> None:
        self.found = ""
        self._path, self._tail, self._read = path, b"", 0

    def feed(self, piece: bytes) -> None:
        """Check the next piece, together with the end of the previous one."""
        if not self.found:
            data = self._tail + piece
            self.found = _private_key(data) or (
                "" if self._read > _LOOKED_AT else _by_kind(self._path, data)
            )
            self._tail = piece[-_OVERLAP:]
            self._read += len(piece)


def refuse(found: list[tuple[str, str]], allowed: Container[str]) -> None:
    """Raise `SecretRefused` if any of these files (path and reason) is not allowed."""
    found = sorted((path, why) for path, why in found if path not in allowed)
    if found:
        listed = "".join(f"\n  {path}: {why}" for path, why in found[:20]) + (
            "\n  ..." if len(found) > 20 else ""
        )
        raise SecretRefused(
            f"{len(found)} {'file' if len(found) == 1 else 'files'} with secrets would have gone"
            f" into the bundle:{listed}",
            why=(
                "A bundle is stored in caches and registries, where anyone with access can read it."
            ),
            hint=(
                f"Add `/{found[0][0]}` to `.flyteignore`; or, if it may be shared, allow it in"
                " flyte.toml:\n"
                f'  bundle.allow_secrets = ["{found[0][0]}"]'
            ),
        )
