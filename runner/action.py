"""Actions: one call of a task each, as a directory that a worker can read.

<run>/action.json   what to run (below)      <run>/result.json   its result, written once
<run>/log           its output               <run>/work/         its working directory
<run>/abort         a request to end it
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flyte_build.cas.folder import make_below, opener

if TYPE_CHECKING:
    from .call import Call


@dataclass(frozen=True, kw_only=True)
class Action:
    """One attempt of a call; attempts count from 1, and `folder` is the directory of the run."""

    id: str
    run: str
    folder: str
    call: Call
    attempt: int = 1

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
            "file": workspace.file,
            "inputs": dict(call.inputs),
            "root": workspace.root,
            "roots": list(workspace.roots),
            "last": list(workspace.last),
            "shown": {place: workspace.shown(place) for place in workspace.beside},
            "code": call.code,
            "env": sorted(call.env),
            "timeout": call.task.operational.timeout,
            "attempt": self.attempt,
            "project": options.project,
            "domain": options.domain,
            "version": options.version,
            "copy_style": options.copy_style,
            "options": dict(options.options),
            "deployment": call.deployment,
            "spec": call.task.document(),
        }

    def write(self) -> None:
        """Write the action into its directory, for a worker."""
        make_below(f"{self.folder}/work")
        with open(f"{self.folder}/action.json", "w", encoding="utf-8", opener=opener) as file:
            json.dump(self.document(), file)
        try:
            os.unlink(f"{self.folder}/result.json")
        except FileNotFoundError:
            pass


def read_action(folder: str) -> dict[str, Any] | None:
    """Return the document of the action in a run's directory; None if missing or damaged."""
    try:
        with open(f"{folder}/action.json", encoding="utf-8") as file:
            document: dict[str, Any] = json.load(file)
            return document
    except (OSError, ValueError):
        return None
