"""Findings: the cached result of discovery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from flyte_build.declarations.spec import EnvironmentSpec, JsonObject, TaskSpec
from flyte_build.workspace.workspace import Workspace, inner_first


class Findings:
    """The tasks and environments of a file, and the files that it needs, as paths in the tree.

    `modules` are files that were imported, and `native` those of them that contain machine code.
    `read` were read as data, and `withheld` as well, but these may contain secrets. `loose` are
    absolute paths of modules that were loaded by path from outside of the project. `include` are
    pairs of a directory and a pattern. `environments` are names of environments, by variable.
    """

    def __init__(self, document: JsonObject) -> None:
        self._document = document
        self.modules: Sequence[str] = document["modules"]
        self.read: Sequence[str] = document["read"]
        self.withheld: Sequence[str] = document["withheld"]
        self.loose: Sequence[str] = document["loose"]
        self.native: Sequence[str] = document["native"]
        self.include: Sequence[tuple[str, str]] = document["include"]
        self.environments: Mapping[str, str] = document["environments"]

    @cached_property
    def tasks(self) -> Mapping[str, TaskSpec]:
        """Specs of the file's tasks, by variable."""
        return {
            variable: TaskSpec.parse(task) for variable, task in self._document["tasks"].items()
        }

    @cached_property
    def reachable(self) -> Sequence[EnvironmentSpec]:
        """Environments of the file, and all their direct and indirect dependencies."""
        return [EnvironmentSpec.parse(each) for each in self._document["reachable"]]

    def placed(self, workspace: Workspace) -> Workspace:
        """Return the workspace with the module name and all the import roots that were found."""
        found = self._document
        return Workspace(
            workspace.root,
            workspace.file,
            found["module"],
            tuple(found["roots"]),
            tuple(found["last"]),
            inner_first(found["beside"]),
        )
