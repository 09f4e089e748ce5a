"""Requests to end a run or one of its actions, from any process: a file in the run's directory.

The process that executes the run looks for the file, `abort` for the run and `aborts/ID` for an
action. No signal is sent and no pid is looked up, so no other process can be hit, and it works from
another container, too.
"""

from __future__ import annotations

import json
import os
import pwd
from typing import NamedTuple

from flyte_build.cas.atomic import create_file
from flyte_build.cas.folder import make_below

LOOK = 0.25  # Seconds between two checks.


class Request(NamedTuple):
    """A request to end a run or an action: the user who made it, and the reason ("" if none)."""

    by: str
    reason: str

    def __str__(self) -> str:
        return f"{self.by} aborted it" + (f": {self.reason}" if self.reason else "")


def ask(folder: str, reason: str) -> None:
    """Request the end of the run in `folder`; only the first request counts."""
    _write(f"{folder}/abort", reason)


def ask_action(folder: str, action: str, reason: str) -> None:
    """Request the end of an action of the run in `folder`, and of all that it has called."""
    make_below(f"{folder}/aborts")
    _write(f"{folder}/aborts/{action}", reason)


def asked(folder: str) -> Request | None:
    """Return the request to end the run in `folder`, or None."""
    return _read(f"{folder}/abort")


def take_asked_actions(folder: str) -> list[tuple[str, Request]]:
    """Return the requests to end actions of the run in `folder`, and remove them."""
    try:
        names = os.listdir(f"{folder}/aborts")
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        path = f"{folder}/aborts/{name}"
        if "." not in name and (request := _read(path)):
            os.unlink(path)
            found.append((name, request))
    return found


def _write(path: str, reason: str) -> None:
    try:
        by = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # The user id has no name, as in some containers.
        by = f"user {os.getuid()}"
    create_file(path, json.dumps(Request(by, reason)._asdict()).encode())


def _read(path: str) -> Request | None:
    try:
        with open(path, encoding="utf-8") as file:
            return Request(**json.load(file))
    except FileNotFoundError:
        return None
