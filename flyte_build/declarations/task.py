"""Tasks: functions with a name, an environment and an interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from flyte_build.errors import DeclarationError, DeclarationTypeError

from .call import call, call_async
from .setting import check_options

if TYPE_CHECKING:
    from .cache import Cache
    from .environment import TaskEnvironment
    from .resources import Resources, RetryStrategy, Timeout
    from .reuse_policy import ReusePolicy
    from .secret import Secret

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
        "service_account",
    ]
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a task as declared; None stands for the environment's setting."""

    short_name: str | None = None
    cache: Cache | str | bool | None = None
    retries: int | RetryStrategy = 0
    timeout: Timeout | Any | None = None
    resources: Resources | None = None
    env_vars: Mapping[str, str] | None = None
    secrets: str | Secret | list[str | Secret] | None = None
    reusable: ReusePolicy | Literal["off"] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Return options from keyword arguments.

        Raises `DeclarationError` for an invalid value, and `DeclarationTypeError` for a value of a
        wrong type or an unknown name.
        """
        unknown = sorted(given.keys() - OPTIONS)
        if unknown:
            raise DeclarationTypeError(
                f"A task has no option {unknown[0]!r}",
                hint=f"Use one of: {', '.join(sorted(OPTIONS))}.",
            )
        check_options(given)
        retries = given.get("retries", 0)
        if (retries < 0) if isinstance(retries, int) else not hasattr(retries, "backoff"):
            raise DeclarationError(
                f"retries must be 0 or more, or a flyte.RetryStrategy, not {retries!r:.100}",
                hint="Use 0 to disable retries.",
            )
        if given.get("cache") is not None:
            from .cache import cache_of

            cache_of(given["cache"])
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


def refuse_for_kept_workers(task: str, given: Mapping[str, Any]) -> None:
    """Raise `DeclarationError` if options `given` to `override` would change kept workers."""
    for name in ("resources", "env_vars", "secrets", "service_account"):
        if given.get(name) is not None and given.get("reusable") != "off":
            raise DeclarationError(
                f"Cannot override {name} of {task}",
                why="Its workers are kept, and shared with the environment's other tasks.",
                hint='Add reusable="off" to run this call in a worker of its own.',
            )


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
        self._check_reuse()
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

    @property
    def reusable(self) -> ReusePolicy | None:
        """Policy for the task's workers, if they are kept: its own or its environment's."""
        own = self.options.reusable
        return None if own == "off" else own or self.environment.reusable

    def _check_reuse(self) -> None:
        policy = self.reusable
        if policy and policy.concurrency > 1 and not self.is_async:
            raise DeclarationError(
                f"The task {self.name} cannot run with a concurrency of {policy.concurrency}",
                why="A worker runs several actions at once only if they are coroutines.",
                hint="Write `async def`, or set the concurrency of the ReusePolicy to 1.",
            )
        if policy and self.options.others.get("pod_template"):
            raise DeclarationError(
                f"The task {self.name} cannot have a pod_template of its own",
                why="Its workers are kept, and shared with the environment's other tasks.",
                hint="Declare it with the environment.",
            )

    def override(self, **options: Any) -> Task[P, R]:
        """Return this task with some options replaced. Raises `DeclarationError`.

        If the workers are kept, their `resources`, `env_vars`, `secrets` and `service_account` can
        only be replaced together with `reusable="off"`.
        """
        if self.reusable:
            refuse_for_kept_workers(self.name, options)
        return Task(self.func, self.environment, self.options.overridden(options))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the task by its module and name, like a function."""
        return _named, (self.func.__module__, self.func.__qualname__, self.options)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


def _named(module: str, name: str, options: Options) -> Task[..., Any]:
    """Return the task in the variable `name` of a module, with these options."""
    from importlib import import_module

    task: Task[..., Any] = getattr(import_module(module), name)
    return task if task.options == options else Task(task.func, task.environment, options)
