"""Specs: all that running a task, or deploying an environment, needs to know of it, as values; to
and from JSON.

A task's spec has two halves. The *semantic* one decides its result; the *operational* one only says
how it is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from .interface import Interface

Json = Any  # None, bool, int, float, str, and lists and mappings of these.
JsonObject = Mapping[str, Json]


@dataclass(frozen=True, kw_only=True)
class SemanticSpec:
    """What decides a task's result, beside its code and its inputs.

    `name` is its full one; `function` is the name of what is called. `interface_document` describes
    its `interface`. `image` is `auto`, a reference, or a declaration as a JSON value.
    """

    name: str
    environment: str
    function: str
    is_async: bool
    interface_document: JsonObject
    env_vars: Mapping[str, str]
    image: Json

    @cached_property
    def interface(self) -> Interface:
        """Its inputs and outputs."""
        return Interface.from_document(self.interface_document)


class OperationalSpec(NamedTuple):
    """How a task is run: `timeout` and the `backoff` before each retry are in seconds, `options`
    what engines may act on, by name.

    `unannotated` are the inputs and outputs without annotations.
    """

    short_name: str
    retries: int
    backoff: Sequence[float]
    timeout: float | None
    options: JsonObject
    unannotated: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One task. `module` and `variable` are where it is found again, where that is known; no
    variable if it is held by none.
    """

    semantic: SemanticSpec
    operational: OperationalSpec
    module: str | None = None
    variable: str | None = None

    @property
    def name(self) -> str:
        """Its full name."""
        return self.semantic.name

    @property
    def interface(self) -> Interface:
        """Its inputs and outputs."""
        return self.semantic.interface

    @classmethod
    def parse(cls, document: JsonObject) -> TaskSpec:
        """The spec that `document` has written. Raises `KeyError` for what is none."""
        semantic = SemanticSpec(
            name=document["name"],
            environment=document["environment"],
            function=document["function"],
            is_async=document["async"],
            interface_document=document["interface"],
            env_vars=document["env_vars"],
            image=document["image"],
        )
        operational = OperationalSpec(
            short_name=document["short_name"],
            retries=document["retries"],
            backoff=document["backoff"],
            timeout=document["timeout"],
            options=document["options"],
            unannotated=document["unannotated"],
        )
        return cls(
            semantic=semantic,
            operational=operational,
            module=document.get("module"),
            variable=document.get("variable"),
        )

    def document(self) -> dict[str, Json]:
        """This spec as a JSON value."""
        semantic, operational = self.semantic, self.operational
        place = {} if self.module is None else {"module": self.module, "variable": self.variable}
        return {
            "name": semantic.name,
            "environment": semantic.environment,
            "function": semantic.function,
            "short_name": operational.short_name,
            "async": semantic.is_async,
            "interface": semantic.interface_document,
            "env_vars": semantic.env_vars,
            "retries": operational.retries,
            "backoff": operational.backoff,
            "timeout": operational.timeout,
            "image": semantic.image,
            "options": operational.options,
            "unannotated": operational.unannotated,
            **place,
        }

    def change(
        self, *, env_vars: Mapping[str, str] | None = None, image: Json = None, **operational: Any
    ) -> TaskSpec:
        """The same but for what is given: of the semantic half variables and the image, and fields
        of the operational one.
        """
        semantic = self.semantic
        if env_vars is not None:
            semantic = replace(semantic, env_vars=env_vars)
        if image is not None:
            semantic = replace(semantic, image=image)
        own = self.operational._replace(**operational)
        return replace(self, semantic=semantic, operational=own)


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec:
    """All that deploying an environment needs to know of it: `file` declares it ("": none of the
    project's); `tasks` by function.
    """

    name: str
    file: str
    description: str
    depends_on: Sequence[str]
    image: Json
    tasks: Mapping[str, TaskSpec]

    @classmethod
    def parse(cls, document: JsonObject) -> EnvironmentSpec:
        """The spec that `document` has written. Raises `KeyError` for what is none."""
        tasks = {function: TaskSpec.parse(task) for function, task in document["tasks"].items()}
        return cls(
            name=document["name"],
            file=document["file"],
            description=document["description"],
            depends_on=document["depends_on"],
            image=document["image"],
            tasks=tasks,
        )

    def document(self) -> dict[str, Json]:
        """This spec as a JSON value."""
        return {
            "name": self.name,
            "file": self.file,
            "description": self.description,
            "depends_on": self.depends_on,
            "image": self.image,
            "tasks": {function: task.document() for function, task in self.tasks.items()},
        }
