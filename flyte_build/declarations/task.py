"""Tasks: functions with a name, an environment and an interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from flyte_build.errors import DeclarationError

from .context import call, call_async

if TYPE_CHECKING:
    from .environment import TaskEnvironment
    from .resources import Cache, Resources, RetryStrategy, ReusePolicy, Secret, Timeout

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")

# What may be said of a task, apart from its function: what `@env.task` and `.override` take.
OPTIONS = frozenset(
    [
        "short_name",
        "cache",
        "retries",
        "timeout",
        "docs",
        "report",
        "interruptible",
        "max_inline_io_bytes",
        "queue",
        "triggers",
        "links",
        "entrypoint",
        "resources",
        "reusable",
        "env_vars",
        "secrets",
        "pod_template",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """A task's options as declared; None means that the environment decides."""

    short_name: str | None = None
    cache: Cache | Literal["auto", "override", "disable", "enabled", "disabled"] | None = None
    retries: int | RetryStrategy = 0
    timeout: Timeout | Any | None = None
    resources: Resources | None = None
    env_vars: Mapping[str, str] | None = None
    secrets: str | Secret | list[str | Secret] | None = None
    reusable: ReusePolicy | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options from keywords. Raises `DeclarationError` for a name that does not exist."""
        unknown = sorted(given.keys() - OPTIONS)
        if unknown:
            raise DeclarationError(
                f"A task has no option {unknown[0]!r}",
                hint=f"There are: {', '.join(sorted(OPTIONS))}.",
            )
        retries = given.get("retries", 0)
        if isinstance(retries, int) and retries < 0:
            raise DeclarationError(
                f"retries={retries} is negative", hint="0 means that a task is not tried again."
            )
        own = {name: value for name, value in given.items() if name in cls.__dataclass_fields__}
        return cls(
            **own,
            others={
                name: value
                for name, value in given.items()
                if name not in own and value is not None
            },
        )

    def overridden(self, given: Mapping[str, Any]) -> Options:
        """These options with some replaced; one that is given counts, also when it is 0 or None."""
        Options.of(given)
        own = {name: value for name, value in given.items() if name in self.__dataclass_fields__}
        others = {name: value for name, value in given.items() if name not in own}
        return replace(self, **own, others={**self.others, **others})


class Task(Generic[P, R]):
    """A function that an environment runs. Outside of a run, calling it just calls the function."""

    def __init__(
        self, function: Callable[P, R], environment: TaskEnvironment, options: Options
    ) -> None:
        if not callable(function) or isinstance(function, type):
            raise DeclarationError(
                f"{function!r} is no function",
                hint="Write `@env.task` above a `def` or an `async def`.",
            )
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise DeclarationError(
                    f"The task {function.__name__} takes {parameter}",
                    why="Each input of a task has a name and a type of its own.",
                    hint="Name each parameter, or take a list or a dict.",
                )
        self.func = function
        self.environment = environment
        self.options = options
        update_wrapper(self, function)

    @property
    def name(self) -> str:
        """The full name: the environment's, a dot, the function's."""
        return f"{self.environment.name}.{self.func.__name__}"

    @property
    def short_name(self) -> str:
        """The name that people see: the function's, if no other is given."""
        return self.options.short_name or self.func.__name__

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.func)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the task: inside a run through the place where child actions begin, else the
        function itself.
        """
        result: R = call(self, args, kwargs)
        return result

    @overload
    def aio(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def aio(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Call the task as a coroutine, whichever kind of function it is."""
        return call_async(self, args, kwargs)

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, whatever is going on."""
        return self.func(*args, **kwargs)

    def override(self, **options: Any) -> Task[P, R]:
        """The same task with other options."""
        return Task(self.func, self.environment, self.options.overridden(options))

    def __repr__(self) -> str:
        return f"<task {self.name}>"
