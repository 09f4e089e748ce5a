"""Specs: serializable descriptions of tasks, to run them, and of environments, to deploy them.

A task's spec has two halves. The *semantic* one decides the task's result; the *operational* one
only configures its execution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .interface import Interface

Json = Any  # None, bool, int, float, str, and lists and mappings of these.
JsonObject = Mapping[str, Json]


def completed(interface: JsonObject, inputs: Mapping[str, Json]) -> dict[str, Json]:
    """Return wire inputs with the defaults that an interface's document declares, in its order."""
    declared = {each["name"]: each["default"] for each in interface["inputs"] if "default" in each}
    values = {**declared, **inputs}
    return {
        each["name"]: values[each["name"]] for each in interface["inputs"] if each["name"] in values
    }


class SemanticSpec(NamedTuple):
    """The part of a task's spec that decides its result, together with its code and its inputs.

    `name` is the task's full name, `function` its function's. `interface_document` is its interface
    as a JSON value. `image` is `auto`, a reference, or a declaration as a JSON value.
    """

    name: str
    environment: str
    function: str
    is_async: bool
    interface_document: JsonObject
    env_vars: Mapping[str, str]
    image: Json

    @property
    def interface(self) -> Interface:
        """The task's inputs and outputs."""
        return Interface.from_document(self.interface_document)


class OperationalSpec(NamedTuple):
    """The part of a task's spec that configures its execution.

    All times are in seconds: `timeout` limits one attempt, `max_queued` the wait for a place to
    run, and `deadline` all of it; `backoff` is the wait before each retry. `options` are further
    options by name, which an engine may implement. `unannotated` names the inputs without an
    annotation, and "the result" if it has none.
    """

    short_name: str
    retries: int
    backoff: Sequence[float]
    timeout: float | None
    options: JsonObject
    unannotated: Sequence[str]
    max_queued: float | None = None
    deadline: float | None = None


class TaskSpec(NamedTuple):
    """Spec of one task.

    `module` and `variable` locate the task: the module that defines it (None if unknown), and the
    variable that holds it (None if there is none).
    """

    semantic: SemanticSpec
    operational: OperationalSpec
    module: str | None = None
    variable: str | None = None

    @property
    def name(self) -> str:
        """The task's full name."""
        return self.semantic.name

    @property
    def place(self) -> str:
        """The task's place, as `MODULE:VARIABLE`."""
        return f"{self.module}:{self.variable}"

    @property
    def interface(self) -> Interface:
        """The task's inputs and outputs."""
        return self.semantic.interface

    @classmethod
    def parse(cls, document: JsonObject) -> TaskSpec:
        """Return the spec from a value that `document` returned. Raises `KeyError` if invalid."""
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
            max_queued=document.get("max_queued"),
            deadline=document.get("deadline"),
        )
        return cls(
            semantic=semantic,
            operational=operational,
            module=document.get("module"),
            variable=document.get("variable"),
        )

    def document(self) -> dict[str, Json]:
        """Return this spec as a JSON value."""
        semantic, operational = self.semantic, self.operational
        place = {} if self.module is None else {"module": self.module, "variable": self.variable}
        limits = {"max_queued": operational.max_queued, "deadline": operational.deadline}
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
            **{name: limit for name, limit in limits.items() if limit is not None},
            **place,
        }

    def change(
        self, *, env_vars: Mapping[str, str] | None = None, image: Json = None, **operational: Any
    ) -> TaskSpec:
        """Return this spec with the given environment variables, image and operational fields."""
        semantic = self.semantic
        if env_vars is not None:
            semantic = semantic._replace(env_vars=env_vars)
        if image is not None:
            semantic = semantic._replace(image=image)
        own = self.operational._replace(**operational)
        return self._replace(semantic=semantic, operational=own)


class EnvironmentSpec(NamedTuple):
    """Spec of one environment.

    `file` is the file that declares it ("" if that is not one of the project's), `tasks` are its
    tasks by the names of their functions.
    """

    name: str
    file: str
    description: str
    depends_on: Sequence[str]
    image: Json
    tasks: Mapping[str, TaskSpec]

    @classmethod
    def parse(cls, document: JsonObject) -> EnvironmentSpec:
        """Return the spec from a value that `document` returned. Raises `KeyError` if invalid."""
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
        """Return this spec as a JSON value."""
        return {
            "name": self.name,
            "file": self.file,
            "description": self.description,
            "depends_on": self.depends_on,
            "image": self.image,
            "tasks": {function: task.document() for function, task in self.tasks.items()},
        }
