"""Actions: one call of a task each, as a directory that a worker can read.

<run>/action.json   what to run (below)      <run>/result.json   its result, written once
<run>/log           its output               <run>/work/         its working directory
<run>/abort         a request to end it
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from flyte_build.cas.atomic import replace_file
from flyte_build.cas.folder import make_below

from .limits import Limits

if TYPE_CHECKING:
    from .call import Call


ROOT = "a0"
"""Id of the root action of each run."""
CONDITION = "condition"
"""Name of the environment whose tasks are conditions, for which no worker is needed."""


def label(short_name: str, id: str) -> str:
    """Return the name of an action in messages: `task a1b2c3`."""
    return f"{short_name} {id[:6]}"


class Endpoint(NamedTuple):
    """Address of a controller for its workers: a Unix socket, and a token for the run."""

    socket: str
    token: str


class Action(NamedTuple):
    """One attempt of a call; attempts count from 1, and `folder` is the directory of the action.

    `parent` is the id of the action that has called it, `started` the start of the run (epoch
    seconds). `gpus` are the names of those that are its own meanwhile. `worker` is the number of
    the worker that it shares with others of its environment; 0 if it shares none.
    """

    id: str
    run: str
    folder: str
    call: Call
    parent: str | None = None
    attempt: int = 1
    started: float = 0.0
    gpus: Sequence[str] = ()
    endpoint: Endpoint | None = None
    worker: int = 0

    @property
    def limits(self) -> Limits:
        """Limits of the resources that it uses."""
        return Limits.of(self.call.task.operational.options.get("resources") or {})

    @property
    def marks(self) -> dict[str, str]:
        """Variables of all its processes, which tell what they belong to."""
        return {
            "FLYTE_RUN": self.run,
            "FLYTE_ACTION": self.id,
            "FLYTE_ATTEMPT_NUMBER": str(self.attempt - 1),
        }

    def order(self, folder: str) -> dict[str, Any]:
        """Return what its worker, which knows `folder` as the action's directory, is told.

        It is a JSON value with variables, files of secrets, and the controller's address: nothing
        that may be in a file.
        """
        secrets = self.call.secrets
        return {
            "folder": folder,
            "env": {**self.call.env, **secrets.variables, **self.marks},
            "files": dict(secrets.files),
            "endpoint": self.endpoint and self.endpoint._asdict(),
        }

    def document(self) -> dict[str, Any]:
        """Return everything that a worker, or a later rerun, needs, as a JSON value.

        `roots` are import roots in the code, in order, `last` those after installed packages;
        `root` is the working tree, which must not be imported from. `shown` maps directories of the
        code that come from outside the project to their names in messages. Of environment
        variables, only the names are included; no file contains their values.
        """
        call, workspace, options = self.call, self.call.workspace, self.call.run
        return {
            "id": self.id,
            "run": self.run,
            "folder": self.folder,
            "task": call.task.name,
            "module": workspace.module,
            "variable": call.variable,
            "inputs": dict(call.inputs),
            **call.sources.document(),
            "env": sorted(call.env),
            "timeout": call.task.operational.timeout,
            "attempt": self.attempt,
            "parent": self.parent,
            "started": self.started,
            "context": dict(call.context),
            "project": options.project,
            "domain": options.domain,
            "version": options.version,
            "copy_style": options.copy_style,
            "options": dict(options.options),
            "max_actions": options.max_actions,
            "deployment": call.deployment,
            "spec": call.task.document(),
        }

    def write(self) -> None:
        """Write the action into its directory, for a worker."""
        make_below(f"{self.folder}/work")
        remove_unfinished(self.folder)
        # Whole at any time: a run whose command is killed meanwhile can be recovered.
        document = json.dumps(self.document()).encode()
        replace_file(f"{self.folder}/action.json", document, sync=False)
        try:
            os.unlink(f"{self.folder}/result.json")
        except FileNotFoundError:
            pass


def remove_unfinished(folder: str) -> None:
    """Remove files that were being written when their writer was killed."""
    for name in os.listdir(folder):
        if name.startswith(("action.json.", "result.json.")):
            with suppress(FileNotFoundError):
                os.unlink(f"{folder}/{name}")


def tidy(folder: str, *, is_done: bool = False) -> None:
    """Remove the directory of a child that has ended, except its log and files that it has written.

    Its inputs and its result are in the history. What it has saved is for its next attempt: if it
    `is_done`, there is none.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return
    if is_done and "checkpoint" in names:
        remove_checkpoint(folder)
    with suppress(OSError):
        remove_unfinished(folder)
        for name in {"action.json", "result.json"} & {*names}:
            os.unlink(f"{folder}/{name}")
    if "work" in names:
        tidy_work(folder)
    with suppress(OSError):
        os.rmdir(folder)


def tidy_work(folder: str) -> None:
    """Remove the working directory in that of an action, unless there are files in it."""
    with suppress(OSError):  # Something is left in it, or the task has removed it.
        for entry in os.scandir(f"{folder}/work"):
            if entry.is_symlink():  # Entries of the bundle.
                os.unlink(entry)
        os.rmdir(f"{folder}/work")


def tidy_run(folder: str) -> None:
    """Remove what a run that could not go on has left in its directory."""
    with suppress(OSError):
        for entry in os.scandir(f"{folder}/api"):
            os.unlink(entry)
        os.rmdir(f"{folder}/api")
    with suppress(OSError):
        remove_unfinished(folder)
    with suppress(OSError):
        for entry in os.scandir(f"{folder}/actions"):
            tidy(entry.path)


def remove_checkpoint(folder: str) -> None:
    """Remove what an action that succeeded has saved, and its directory if it has nothing else."""
    if os.path.isdir(f"{folder}/checkpoint"):
        import shutil

        shutil.rmtree(f"{folder}/checkpoint", ignore_errors=True)
    with suppress(OSError):
        os.rmdir(folder)


def read_action(folder: str) -> dict[str, Any] | None:
    """Return the document of the action in a run's directory; None if missing or damaged."""
    try:
        with open(f"{folder}/action.json", encoding="utf-8") as file:
            document: dict[str, Any] = json.load(file)
            return document
    except (OSError, ValueError):
        return None
