"""An action: one call of a task, as a directory that a worker can read.

<run>/action.json   what to run (below)      <run>/result.json   what came of it, written once
<run>/log           what it printed          <run>/work/         its working directory
<run>/abort         who asked it to end
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
    """One attempt at a `call`, which counts from 1; `folder` is its own, in the
    history of `run`.
    """

    id: str
    run: str
    folder: str
    call: Call
    attempt: int = 1

    def document(self) -> dict[str, Any]:
        """All that a worker must know, as a JSON value, and all that running the same again takes.

        `roots` are import roots in the code, in order, `last` those after installed packages;
        `root` is the working tree, which must not be imported from. `shown` says how directories of
        the code that come from elsewhere are called in messages. Of environment variables the names
        stand in it, the values in no file.
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
        }

    def write(self) -> None:
        """Put the action into its directory, for a worker."""
        make_below(f"{self.folder}/work")
        with open(f"{self.folder}/action.json", "w", encoding="utf-8", opener=opener) as file:
            json.dump(self.document(), file)
        try:
            os.unlink(f"{self.folder}/result.json")
        except FileNotFoundError:
            pass


def read_action(folder: str) -> dict[str, Any] | None:
    """The document of the action in a run's directory, or None if it is not there, whole."""
    try:
        with open(f"{folder}/action.json", encoding="utf-8") as file:
            document: dict[str, Any] = json.load(file)
            return document
    except (OSError, ValueError):
        return None
