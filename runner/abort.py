"""Requests to end a run, from any process: a file in the run's directory.

The process that executes the run looks for the file. No signal is sent and no pid is looked up, so
no other process can be hit, and it works from another container, too.
"""

from __future__ import annotations

import json
import os
import pwd
from typing import NamedTuple

from flyte_build.cas.folder import opener

LOOK = 0.25  # Seconds between two checks.


class Request(NamedTuple):
    """A request to end a run: the user who made it, and the reason ("" if none)."""

    by: str
    reason: str

    def __str__(self) -> str:
        return f"{self.by} aborted it" + (f": {self.reason}" if self.reason else "")


def ask(folder: str, reason: str) -> None:
    """Request the end of the run in `folder`; only the first request counts."""
    try:
        by = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # The user id has no name, as in some containers.
        by = f"user {os.getuid()}"
    temporary = f"{folder}/abort.{os.urandom(4).hex()}"
    with open(temporary, "w", encoding="utf-8", opener=opener) as file:
        json.dump(Request(by, reason)._asdict(), file)
    try:
        os.link(temporary, f"{folder}/abort")
    except FileExistsError:
        pass
    finally:
        os.unlink(temporary)


def asked(folder: str) -> Request | None:
    """Return the request to end the run in `folder`, or None."""
    try:
        with open(f"{folder}/abort", encoding="utf-8") as file:
            return Request(**json.load(file))
    except FileNotFoundError:
        return None
