"""Human-readable differences between two sets of a node's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyte_build.cas.digest import Digest


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Describe what differs between two sets of inputs: names, and values if they are short."""
    parts = []
    for name in sorted(old.keys() | new.keys()):
        before, now = old.get(name), new.get(name)
        if before == now or (isinstance(now, tuple) and list(now) == before):
            continue
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            parts.append(f"{name}: {changes(before, now)}")
        elif isinstance(now, Digest) or len(str(before)) + len(str(now)) > 100:
            parts.append(f"{name} changed")
        else:
            parts.append(f"{name}: {before} -> {now}")
    return "; ".join(parts) or "no recorded input changed"


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe the entries of a mapping that were changed, added and removed."""
    listed = {
        "changed": sorted(name for name in now if name in before and now[name] != before[name]),
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
    }
    return counted(listed)


def counted(listed: Mapping[str, list[str]], what: str = "") -> str:
    """Format as `2 files changed: a.py, lib/b.py; 1 added: c.py`, at most five names of each."""
    from flyte_build.text.wording import printable

    parts: list[str] = []
    for how, names in listed.items():
        if names:
            noun = f" {what}{'s' if len(names) > 1 else ''}" if what and not parts else ""
            parts.append(
                f"{len(names)}{noun} {how}:"
                f" {', '.join(map(printable, names[:5]))}{', ...' if len(names) > 5 else ''}"
            )
    return "; ".join(parts)
