"""An action: one call of a task, as a folder that a worker can read.

<run>/action.json   what to run (below)      <run>/result.json   what came of it, written once
<run>/log           what it printed          <run>/work/         its working folder
<run>/abort         who asked it to end
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from flyte_build.cas.folder import make_below, opener


@dataclass(frozen=True, kw_only=True)
class Action:
    """`code` is the folder of the extracted bundle ("" without one), `roots` the import roots in it, in order.

    `last` are import roots after installed packages. `root` is the working tree, which must not be imported from, and `file` the task's
    file in it; `shown` says how folders of the bundle that come from elsewhere are called in messages;
    `inputs` are wire; `env` are added to the environment;
    `timeout` is in seconds. `attempt` counts from 1. `copy_style` says how the bundle was made; `options`
    are what else was asked for, and is not acted on. `deployment` names a deployed task by its pin; then there is no working
    tree: `root` is "".
    """

    id: str
    run: str
    folder: str
    task: str
    module: str
    variable: str
    file: str
    inputs: Mapping[str, Any]
    root: str
    roots: tuple[str, ...] = ("",)
    last: tuple[str, ...] = ()
    shown: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    attempt: int = 1
    project: str = "default"
    domain: str = "development"
    version: str = ""
    copy_style: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    deployment: str = ""

    def write(self) -> None:
        """Put the action into its folder, for a worker. Values of environment variables stay out of every file."""
        make_below(f"{self.folder}/work")
        document = {**asdict(self), "env": sorted(self.env)}
        with open(f"{self.folder}/action.json", "w", encoding="utf-8", opener=opener) as file:
            json.dump(document, file)
        try:
            os.unlink(f"{self.folder}/result.json")
        except FileNotFoundError:
            pass

    def result(self) -> dict[str, Any] | None:
        """What the worker wrote, or None when it has not finished (or died while writing)."""
        return read_document(self.folder, "result")


def read_document(folder: str, name: str) -> dict[str, Any] | None:
    """The document `action` or `result` in a run's folder, or None if it is not there, whole."""
    try:
        with open(f"{folder}/{name}.json", encoding="utf-8") as file:
            document: dict[str, Any] = json.load(file)
            return document
    except (OSError, ValueError):
        return None


def write_result(folder: str, result: Mapping[str, Any]) -> None:
    """Commit a result, once and whole."""
    temporary = f"{folder}/result.json.new"
    with open(temporary, "w", encoding="utf-8", opener=opener) as file:
        json.dump(result, file, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, f"{folder}/result.json")
