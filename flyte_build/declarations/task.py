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

# The options that `@env.task` and `.override` accept.
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
    """Options of a task as declared; None stands for the environment's setting."""

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
        """Return options from keyword arguments.

        Raises `DeclarationError` for an unknown name or negative retries.
        """
        unknown = sorted(given.keys() - OPTIONS)
        if unknown:
            raise DeclarationError(
                f"A task has no option {unknown[0]!r}",
                hint=f"Use one of: {', '.join(sorted(OPTIONS))}.",
            )
        retries = given.get("retries", 0)
        if isinstance(retries, int) and retries < 0:
            raise DeclarationError(
                f"retries must be 0 or more, not {retries}", hint="Use 0 to disable retries."
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
        """Return these options with those `given` replaced, also by 0 or None."""
        Options.of(given)
        own = {name: value for name, value in given.items() if name in self.__dataclass_fields__}
        others = {name: value for name, value in given.items() if name not in own}
        return replace(self, **own, others={**self.others, **others})


class Task(Generic[P, R]):
    """A function with an environment. Outside of a run, calling it just calls the function."""

    def __init__(
        self, function: Callable[P, R], environment: TaskEnvironment, options: Options
    ) -> None:
        if not callable(function) or isinstance(function, type):
            raise DeclarationError(
                f"A task must be a function, not {function!r}",
                hint="Write `@env.task` above a `def` or an `async def`.",
            )
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise DeclarationError(
                    f"The task {function.__name__} takes {parameter}",
                    why="Each input of a task must have a name and a type of its own.",
                    hint="Name each parameter, or take a list or a dict.",
                )
        self.func = function
        self.environment = environment
        self.options = options
        update_wrapper(self, function)

    @property
    def name(self) -> str:
        """Full name: the environment's and the function's, joined by a dot."""
        return f"{self.environment.name}.{self.func.__name__}"

    @property
    def short_name(self) -> str:
        """Human-readable name (default: the function's)."""
        return self.options.short_name or self.func.__name__

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.func)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the task: inside a run as a child action, otherwise the function itself."""
        result: R = call(self, args, kwargs)
        return result

    @overload
    def aio(
        self: Task[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...
    @overload
    def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def aio(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Return a coroutine that calls the task, whether its function is sync or async."""
        return call_async(self, args, kwargs)

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, even inside a run."""
        return self.func(*args, **kwargs)

    def override(self, **options: Any) -> Task[P, R]:
        """Return this task with some options replaced. Raises `DeclarationError`."""
        return Task(self.func, self.environment, self.options.overridden(options))

    def __repr__(self) -> str:
        return f"<task {self.name}>"
