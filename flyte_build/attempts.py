"""Carrying an action out on an engine: attempts, retries, timeouts, cancelling, and the history of it all."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.runner.action import Action
from flyte_build.runner.history import History, Phase

from .config import Places
from .discovery import Project
from .graph import Node, Outcome
from .prepare import CopyStyle

if TYPE_CHECKING:
    from flyte_build.runner.engine import Engine, Event

EngineName = Literal["auto", "process", "local"]
ENGINES: tuple[EngineName, ...] = ("auto", "process", "local")
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
    """How to run: what the command's options and the caller's arguments say."""

    project: str = "default"
    domain: str = "development"
    name: str | None = None
    version: str = ""
    copy_style: CopyStyle = "loaded_modules"
    env: Mapping[str, str] = field(default_factory=dict)
    engine: EngineName = "auto"
    remake: bool = False


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


@dataclass(frozen=True, kw_only=True)
class Call:
    """What is run and how: the described `task`, which stands under `variable` in the project's file, with wire inputs.

    `code` is the folder of the extracted bundle ("" without one).
    """

    task: Mapping[str, Any]
    project: Project
    variable: str
    inputs: Mapping[str, Any]
    settings: Settings
    code: str = ""

    def action(self, run: str, folder: str, attempt: int) -> Action:
        """The action that a worker is given for one attempt."""
        return Action(
            id=f"{run}-a0",
            run=run,
            folder=folder,
            task=self.task["name"],
            module=self.project.module,
            variable=self.variable,
            file=self.project.file,
            inputs=self.inputs,
            root=self.project.root,
            roots=tuple(self.project.roots),
            last=tuple(self.project.last),
            code=self.code,
            env={**self.task["env_vars"], **self.settings.env},
            timeout=self.task["timeout"],
            attempt=attempt,
            project=self.settings.project,
            domain=self.settings.domain,
            version=self.settings.version,
        )


@dataclass(frozen=True)
class _Ending:
    """What came of an attempt."""

    phase: Phase
    error: Mapping[str, str] | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)


def carry_out(call: Call, engine: "Engine", stores: Stores, listener: Listener, began: float) -> Finished:
    """Run a task until it has succeeded or may not be tried again; `began` is the monotonic time from which seconds count."""
    task, settings, history = call.task, call.settings, stores.history
    _say_unused(engine, task, listener)
    name = history.begin(task["name"], call.project.file, settings.project, settings.domain, settings.version, settings.name)
    folder = history.run_folder(name)
    url = f"file://{folder}"
    listener.started(name, url)
    attempt, ending = 0, _Ending("failed")
    try:
        while True:
            attempt += 1
            ending = _try(engine, call.action(name, folder, attempt))
            if ending.phase == "succeeded" or attempt > task["retries"]:
                break
            _wait_before_retry(task, attempt, ending, listener)
    except (KeyboardInterrupt, Stopped):
        ending = _Ending("aborted", _error("ActionAbortedError", "it was interrupted"))
        raise
    finally:
        history.end(name, ending.phase, ending.error["message"] if ending.error else "", attempt)
    return Finished(name, url, task["name"], ending.phase, ending.outputs, ending.error, time.monotonic() - began)


def _wait_before_retry(task: Mapping[str, Any], attempt: int, ending: _Ending, listener: Listener) -> None:
    wait = task["backoff"][attempt - 1] if task["backoff"] else 0.0
    reason = ending.error["message"] if ending.error else ending.phase
    again = f"trying again in {wait:g} s" if wait else "trying again"
    listener.said(f"Attempt {attempt} of {task['retries'] + 1} failed ({reason}); {again}.")
    time.sleep(wait)


def _try(engine: "Engine", action: Action) -> _Ending:
    """Make one attempt, and stop it at its timeout or when a person or a signal asks for it."""
    engine.submit(action)
    try:
        event = engine.wait(action, action.timeout)
        if event is None:
            engine.cancel(action, at_once=False)
            engine.wait(action, None)
            return _Ending("timed_out", _error("TaskTimeoutError", f"it ran longer than its timeout of {action.timeout:g} s"))
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


def _outcome(action: Action, event: "Event") -> _Ending:
    result = action.result()
    if result is None:  # Whatever the engine says: without a result it has not succeeded.
        oom = event.exit_code == 137
        why = event.why or "its process ended without a result"
        if event.kind == "succeeded":
            why = "its process ended with exit code 0, but without a result (os._exit?)"
        return _Ending("failed", _error("OOMError" if oom else "RuntimeUnknownError", why, "user" if oom else "system"))
    if result["phase"] == "succeeded":
        return _Ending("succeeded", outputs=result["outputs"])
    return _Ending("failed", result["error"])


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
