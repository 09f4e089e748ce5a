"""Asking a run to end, from any process: a file in the run's directory, which whoever carries the
run out looks for.

No signal is sent and no pid is looked up, so that nothing else can be hit, and it works from
another container too.
"""

from __future__ import annotations

import json
import os
import pwd
from typing import NamedTuple

from flyte_build.cas.folder import opener

LOOK = 0.25  # Seconds between two looks.


class Request(NamedTuple):
    """Who asked, and why if that was said."""

    by: str
    reason: str

    def __str__(self) -> str:
        return f"{self.by} aborted it" + (f": {self.reason}" if self.reason else "")


def ask(folder: str, reason: str) -> None:
    """Ask the run in `folder` to end. The first request counts."""
    try:
        by = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # As in a container that runs under any number.
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
    """The request to end the run in `folder`, if there is one."""
    try:
        with open(f"{folder}/abort", encoding="utf-8") as file:
            return Request(**json.load(file))
    except FileNotFoundError:
        return None
