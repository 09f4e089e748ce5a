"""`TaskEnvironment`: the settings that a group of tasks shares."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from flyte_build._alias import PACKAGE
from flyte_build.errors import DeclarationError, DeclarationTypeError

from .setting import check_settings
from .task import Options, Task

if TYPE_CHECKING:
    from .cache import Cache
    from .image import Image
    from .pod_template import PodTemplate
    from .resources import Resources
    from .reuse_policy import ReusePolicy
    from .secret import Secret

P = ParamSpec("P")
R = TypeVar("R")

_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*\Z")


@dataclass(eq=False)
class Environment:
    """An image, resources and settings; `TaskEnvironment` is one that has tasks.

    `include` names files, directories and globs, relative to the declaring file, that are needed at
    run time. Raises `DeclarationError` unless `name` consists of lower-case letters and digits,
    with single `-` or `_` between them, and `DeclarationTypeError` for a setting of a wrong type.
    """

    name: str
    image: str | Image | None = "auto"
    resources: Resources | None = None
    env_vars: Mapping[str, str] | None = None
    secrets: str | Secret | Sequence[str | Secret] | None = None
    depends_on: list[Environment] = field(default_factory=list, kw_only=True)
    include: Sequence[str] = field(default=(), kw_only=True)
    description: str | None = field(default=None, kw_only=True)
    interruptible: bool = field(default=False, kw_only=True)
    service_account: str | None = field(default=None, kw_only=True)
    pod_template: str | PodTemplate | None = field(default=None, kw_only=True)
    tasks: dict[str, Task[..., Any]] = field(default_factory=dict, init=False, repr=False)
    declared_in: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        check_settings(self)
        if not _NAME.match(self.name):
            raise DeclarationError(
                f"{self.name!r} is not a valid environment name",
                why=(
                    "A name consists of lower-case letters and digits, with single `-` or `_`"
                    " between them."
                ),
                hint="Choose a name like `my_env` or `train-gpu`.",
            )
        self.depends_on = list(self.depends_on)
        for environment in self.depends_on:
            _check_environment(environment)
        self.declared_in = _declaring_file()

    def add_dependency(self, *environments: Environment) -> None:
        """Declare that this environment's tasks call tasks of `environments`."""
        for environment in environments:
            _check_environment(environment)
            if environment is self:
                raise DeclarationError(f"The environment {self.name} cannot depend on itself")
            if environment not in self.depends_on:
                self.depends_on.append(environment)

    def clone_with(self, name: str, **settings: Any) -> Self:
        """Return a copy of this environment under a new name, with some settings replaced.

        The copy has no tasks. Raises `DeclarationTypeError` for an unknown setting.
        """
        own = {
            field.name: getattr(self, field.name)
            for field in self.__dataclass_fields__.values()
            if field.init and field.name != "name"
        }
        unknown = sorted(settings.keys() - own.keys())
        if unknown:
            raise DeclarationTypeError(
                f"An environment has no setting {unknown[0]!r}",
                hint=f"Use one of: {', '.join(sorted(own))}.",
            )
        return type(self)(name, **{**own, **settings})

    def reachable(self) -> Iterator[Environment]:
        """Yield this environment and all its direct and indirect dependencies, each once.

        Cycles are allowed.
        """
        seen: dict[int, Environment] = {}
        waiting: list[Environment] = [self]
        while waiting:
            environment = waiting.pop()
            if id(environment) not in seen:
                seen[id(environment)] = environment
                waiting += environment.depends_on
        yield from seen.values()


@dataclass(eq=False)
class TaskEnvironment(Environment):
    """An image, resources and settings for the tasks that are declared with its `task` decorator.

    `include` names files, directories and globs, relative to the declaring file, that its tasks
    need at run time. Raises `DeclarationError` unless `name` consists of lower-case letters and
    digits, with single `-` or `_` between them, and `DeclarationTypeError` for a setting of a wrong
    type.
    """

    cache: Cache | str | bool | None = "disable"
    reusable: ReusePolicy | None = None
    queue: str | None = field(default=None, kw_only=True)
    plugin_config: Any = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cache not in (None, "disable"):
            from .cache import cache_of

            cache_of(self.cache)
        if self.reusable and self.plugin_config is not None:
            raise DeclarationError(
                f"The environment {self.name} cannot have both reusable and plugin_config",
                why="A plugin starts workers of its own.",
                hint="Remove one of them.",
            )

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

    @classmethod
    def from_task(cls, name: str, *tasks: Task[..., Any]) -> TaskEnvironment:
        """Return an environment that contains tasks declared in other environments."""
        environment = cls(
            name,
            depends_on=list({id(task.environment): task.environment for task in tasks}.values()),
        )
        environment.tasks.update({task.name: task for task in tasks})
        return environment


def _check_environment(value: Any) -> None:
    if not isinstance(value, Environment):
        raise DeclarationTypeError(f"depends_on must list environments, not {value!r:.100}")


def _declaring_file() -> str:
    frame = sys._getframe(1)
    while frame.f_back and (
        frame.f_code.co_filename.startswith(PACKAGE + "/") or frame.f_code.co_filename == "<string>"
    ):
        frame = frame.f_back
    return frame.f_code.co_filename
