"""Findings: what importing a file has shown, as discovery remembers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from flyte_build.declarations.spec import EnvironmentSpec, JsonObject, TaskSpec
from flyte_build.workspace.workspace import Workspace


class Findings:
    """The tasks of a file, by their variables, and the files that it needs, by their places in the
    tree.

    `modules` were imported, `read` were read as data; `withheld` were read too and may hold
    secrets; `loose` were loaded by their paths from outside of the project; `native` are those
    modules that hold machine code. `include` are directories with patterns. `environments` are the
    names of those that variables of the file hold.
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
        """The specs of the file's tasks."""
        return {
            variable: TaskSpec.parse(task) for variable, task in self._document["tasks"].items()
        }

    @cached_property
    def reachable(self) -> Sequence[EnvironmentSpec]:
        """The environments of the file, and all that they depend on."""
        return [EnvironmentSpec.parse(each) for each in self._document["reachable"]]

    def placed(self, workspace: Workspace) -> Workspace:
        """A workspace with the module's name and all the import roots that were found."""
        found = self._document
        return Workspace(
            workspace.root,
            workspace.file,
            found["module"],
            tuple(found["roots"]),
            tuple(found["last"]),
            found["beside"],
        )
