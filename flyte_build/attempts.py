"""Carrying an action out on an engine: attempts, retries, timeouts, cancelling, and the history of it all."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flyte_build.bundler.budget import Budget
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.runner.action import Action
from flyte_build.runner.history import History, Phase

from .config import Configuration, Places, settings
from .config.settings import CopyStyle, EngineName
from .discovery import Project
from .graph import Node, Outcome

if TYPE_CHECKING:
    from flyte_build.runner.engine import Engine, Event

EXIT_CODES: dict[Phase, int] = {"succeeded": 0, "failed": 1, "aborted": 5, "timed_out": 6}


class Listener:
    """Is told what happens; this one passes on what the user should know, and keeps the rest to itself."""

    def said(self, sentence: str) -> None:
        """Something that the user should know."""
        print(f"note: {sentence}", file=sys.stderr)

    def begun(self, node: Node, why: str) -> None:
        """A node is about to be made."""

    def resolved(self, outcome: Outcome) -> None:
        """A node was found or made."""

    def progress(self, done: int, total: int) -> None:
        """So many of so many files were read."""

    def started(self, name: str, url: str) -> None:
        """The run has begun."""

    def output(self, stream: int, data: bytes) -> None:
        """The task wrote to its standard output (1) or error (2)."""
        os.write(stream, data)


class Stopped(BaseException):
    """SIGTERM, as an exception, so that what is under way ends in order."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run: what the configuration, the command's options and the caller's arguments say."""

    project: str
    domain: str
    name: str | None = None
    version: str = ""
    copy_style: CopyStyle
    env: Mapping[str, str] = field(default_factory=dict)
    engine: EngineName
    remake: bool = False
    allow_secrets: frozenset[str]
    budget: Budget

    @classmethod
    def configured(cls, config: Configuration, **given: Any) -> "Settings":
        """What is `given` (None: it is not), and for all else what the configuration says."""
        values = {
            "project": config[settings.PROJECT],
            "domain": config[settings.DOMAIN],
            "copy_style": config[settings.COPY_STYLE],
            "engine": config[settings.ENGINE],
            "allow_secrets": config[settings.ALLOW_SECRETS],
            "budget": Budget(files=config[settings.MAX_FILES], bytes=config[settings.MAX_BYTES], seconds=config[settings.MAX_SCAN_TIME]),
        }
        return cls(**{**values, **{name: value for name, value in given.items() if value is not None}})


@dataclass(frozen=True)
class Finished:
    """How a run ended: outputs are wire by name, or there is an error (`type`, `message`, `kind`, `traceback`)."""

    name: str
    url: str
    task: str
    phase: Phase
    outputs: Mapping[str, Any]
    error: Mapping[str, str] | None
    seconds: float


class Stores:
    """The cache and the history of this machine, open; runs that had lost their command are ended on the way."""

    def __init__(self, listener: Listener, places: Places | None = None) -> None:
        self.places = places or Places.find()
        self.counters = Counters()
        self.cache = Cache(self.places.cache, self.counters, listener.said)
        self.history = History(self.places.data, listener.said)
        for name in self.history.end_orphans():
            listener.said(f"The run {name} had lost its command; it is marked as failed.")


def carry_out(
    engine: "Engine",
    task: Mapping[str, Any],
    project: Project,
    variable: str,
    inputs: Mapping[str, Any],
    settings: Settings,
    stores: Stores,
    listener: Listener,
    *,
    code: str,
    began: float,
) -> Finished:
    """Run the described `task` with wire inputs until it has succeeded or may not be tried again.

    `code` is the folder of the extracted bundle ("" without one), `began` the monotonic time from which seconds count.
    """
    _say_unused(engine, task, listener)
    name = stores.history.begin(task["name"], project.file, settings.project, settings.domain, settings.version, settings.name)
    folder = stores.history.run_folder(name)
    url = f"file://{folder}"
    listener.started(name, url)
    attempt = 0
    phase: Phase = "failed"
    error: Mapping[str, str] | None = None
    outputs: Mapping[str, Any] = {}
    try:
        while True:
            attempt += 1
            action = Action(
                id=f"{name}-a0",
                run=name,
                folder=folder,
                task=task["name"],
                module=project.module,
                variable=variable,
                file=project.file,
                inputs=inputs,
                root=project.root,
                roots=tuple(project.roots),
                last=tuple(project.last),
                code=code,
                env={**task["env_vars"], **settings.env},
                timeout=task["timeout"],
                attempt=attempt,
                project=settings.project,
                domain=settings.domain,
                version=settings.version,
            )
            engine.submit(action)
            phase, error, outputs = _follow(engine, action)
            if phase == "succeeded" or attempt > task["retries"]:
                break
            wait = task["backoff"][attempt - 1] if task["backoff"] else 0.0
            reason = error["message"] if error else phase
            again = f"trying again in {wait:g} s" if wait else "trying again"
            listener.said(f"Attempt {attempt} of {task['retries'] + 1} failed ({reason}); {again}.")
            time.sleep(wait)
    except (KeyboardInterrupt, Stopped):
        phase, error = "aborted", _error("ActionAbortedError", "it was interrupted")
        raise
    finally:
        stores.history.end(name, phase, error["message"] if error else "", attempt)
    return Finished(name, url, task["name"], phase, outputs, error, time.monotonic() - began)


def _follow(engine: "Engine", action: Action) -> "tuple[Phase, Mapping[str, str] | None, Mapping[str, Any]]":
    """Wait for one attempt, and stop it at its timeout or when a person or a signal asks for it."""
    try:
        event = engine.wait(action, action.timeout)
        if event is None:
            engine.cancel(action, at_once=False)
            engine.wait(action, None)
            return "timed_out", _error("TaskTimeoutError", f"it ran longer than its timeout of {action.timeout:g} s"), {}
    except (KeyboardInterrupt, Stopped):
        _stop(engine, action)
        raise
    return _outcome(action, event)


def _stop(engine: "Engine", action: Action) -> None:
    try:
        engine.cancel(action, at_once=False)
        engine.wait(action, None)
    except (KeyboardInterrupt, Stopped):  # Asked twice: no more patience.
        engine.cancel(action, at_once=True)
        engine.wait(action, None)


def _outcome(action: Action, event: "Event") -> "tuple[Phase, Mapping[str, str] | None, Mapping[str, Any]]":
    result = action.result()
    if result is None:  # Whatever the engine says: without a result it has not succeeded.
        oom = event.exit_code == 137
        why = event.why or "its process ended without a result"
        if event.kind == "succeeded":
            why = "its process ended with exit code 0, but without a result (os._exit?)"
        return "failed", _error("OOMError" if oom else "RuntimeUnknownError", why, "user" if oom else "system"), {}
    if result["phase"] == "succeeded":
        return "succeeded", None, result["outputs"]
    return "failed", result["error"], {}


def _error(kind: str, message: str, whose: str = "user") -> dict[str, str]:
    return {"type": kind, "message": message, "kind": whose, "traceback": ""}


def _say_unused(engine: "Engine", task: Mapping[str, Any], listener: Listener) -> None:
    unused = [name for name in task["unused"] if name not in engine.acts_on]
    if task["timeout"] and "timeout" not in engine.acts_on:
        unused.append("timeout")
    if unused:
        listener.said(f"The {engine.name} engine does not act on: {', '.join(unused)}.")
    if task["image"] not in ("auto", None):
        listener.said(f"The image of {task['environment']} is not built here: its tasks run in the current interpreter.")
