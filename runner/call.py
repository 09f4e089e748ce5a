"""A call of a task: what is run, with which inputs, under which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from flyte_build.bundler.copy_style import CopyStyle
from flyte_build.declarations.spec import TaskSpec
from flyte_build.values.type import Wires
from flyte_build.workspace.workspace import Workspace


class RunOptions(NamedTuple):
    """How a run is recorded, and what it is given beside its inputs. `name`: made if it is None.

    `version` is that of the code, `copy_style` says how its bundle was made. `env` are environment
    variables, which are not kept; `options` are what is asked for and not acted on, by name, as
    JSON values: it is kept with the run, and said.
    """

    project: str
    domain: str
    copy_style: CopyStyle
    name: str | None = None
    version: str = ""
    labels: Mapping[str, str] = MappingProxyType({})
    env: Mapping[str, str] = MappingProxyType({})
    options: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Call:
    """What is run and how: the `task`, which stands under `variable` in the workspace's file, with
    wire inputs.

    `code` is the directory of the extracted bundle and `tree` that bundle's tree ("" without one),
    `deployment` a deployed task's pin: then there is no working tree, and the workspace's root is
    "". `environment` is the directory of the local environment that it runs in ("": the interpreter
    at hand), `variables` those of its image.
    """

    task: TaskSpec
    workspace: Workspace
    variable: str
    inputs: Wires
    run: RunOptions
    code: str = ""
    tree: str = ""
    deployment: str = ""
    environment: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that are added for it."""
        return {**self.variables, **self.task.semantic.env_vars, **self.run.env}
