"""`TaskEnvironment`: the settings that a group of tasks shares."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from flyte_build._alias import PACKAGE
from flyte_build.errors import DeclarationError

from .task import Options, Task

if TYPE_CHECKING:
    from .image import Image
    from .resources import Resources, ReusePolicy, Secret

P = ParamSpec("P")
R = TypeVar("R")

_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*\Z")


@dataclass(eq=False)
class TaskEnvironment:
    """An image, resources and settings for the tasks that are declared with its `task` decorator.

    `include` names files, directories and globs, relative to the declaring file, that its tasks
    need at run time. Raises `DeclarationError` unless `name` consists of lower-case letters and
    digits, with single `-` or `_` between them.
    """

    name: str
    image: str | Image | None = "auto"
    resources: Resources | None = None
    env_vars: Mapping[str, str] | None = None
    secrets: str | Secret | Sequence[str | Secret] | None = None
    cache: Any = "disable"
    reusable: ReusePolicy | None = None
    depends_on: list[TaskEnvironment] = field(default_factory=list)
    include: Sequence[str] = ()
    description: str | None = None
    interruptible: bool = False
    queue: str | None = None
    service_account: str | None = None
    pod_template: Any = None
    plugin_config: Any = None
    tasks: dict[str, Task[..., Any]] = field(default_factory=dict, init=False, repr=False)
    declared_in: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise DeclarationError(
                f"{self.name!r} is not a valid environment name",
                why=(
                    "A name consists of lower-case letters and digits, with single `-` or `_`"
                    " between them."
                ),
                hint="Choose a name like `my_env` or `train-gpu`.",
            )
        self.depends_on = list(self.depends_on)
        self.declared_in = _declaring_file()

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(self, **options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...
    def task(self, *function: Callable[..., Any], **options: Any) -> Any:
        """Declare a function as a task of this environment: `@env.task` or `@env.task(retries=3)`.

        Raises `DeclarationError` for an unknown option.
        """
        declared = Options.of(options)

        def declare(function: Callable[..., Any]) -> Task[..., Any]:
            task: Task[..., Any] = Task(function, self, declared)
            self.tasks[task.name] = task
            return task

        return declare(*function) if function else declare

    def add_dependency(self, *environments: TaskEnvironment) -> None:
        """Declare that this environment's tasks call tasks of `environments`."""
        for environment in environments:
            if environment is self:
                raise DeclarationError(f"The environment {self.name} cannot depend on itself")
            if environment not in self.depends_on:
                self.depends_on.append(environment)

    def clone_with(self, name: str, **settings: Any) -> TaskEnvironment:
        """Return a copy of this environment under a new name, with some settings replaced.

        The copy has no tasks. Raises `DeclarationError` for an unknown setting.
        """
        own = {
            field.name: getattr(self, field.name)
            for field in self.__dataclass_fields__.values()
            if field.init and field.name != "name"
        }
        unknown = sorted(settings.keys() - own.keys())
        if unknown:
            raise DeclarationError(
                f"An environment has no setting {unknown[0]!r}",
                hint=f"Use one of: {', '.join(sorted(own))}.",
            )
        return TaskEnvironment(name, **{**own, **settings})

    @classmethod
    def from_task(cls, name: str, *tasks: Task[..., Any]) -> TaskEnvironment:
        """Return an environment that contains tasks declared in other environments."""
        environment = cls(
            name,
            depends_on=list({id(task.environment): task.environment for task in tasks}.values()),
        )
        environment.tasks.update({task.name: task for task in tasks})
        return environment

    def reachable(self) -> Iterator[TaskEnvironment]:
        """Yield this environment and all its direct and indirect dependencies, each once.

        Cycles are allowed.
        """
        seen: dict[int, TaskEnvironment] = {}
        waiting = [self]
        while waiting:
            environment = waiting.pop()
            if id(environment) not in seen:
                seen[id(environment)] = environment
                waiting += environment.depends_on
        yield from seen.values()


def _declaring_file() -> str:
    frame = sys._getframe(1)
    while frame.f_back and (
        frame.f_code.co_filename.startswith(PACKAGE + "/") or frame.f_code.co_filename == "<string>"
    ):
        frame = frame.f_back
    return frame.f_code.co_filename
