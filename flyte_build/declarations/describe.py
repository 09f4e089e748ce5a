"""Conversion of declared tasks to specs, and overriding of a spec's options."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from flyte_build.errors import DeclarationError, InputError

from .cache import cache_of
from .interface import Interface, interface_of, unannotated
from .resources import RetryStrategy, Timeout, in_seconds
from .serialize import image_value, json_value
from .spec import JsonObject, OperationalSpec, SemanticSpec, TaskSpec
from .task import Options, Task, refuse_for_kept_workers


def task_spec(task: Task[..., Any], root: str = "", *, docs: bool = True) -> TaskSpec:
    """Return the spec of a task, with paths below `root` relative to it.

    Without `docs`, it has no descriptions of inputs, and its defaults are not proven: see
    `interface_of`. Raises `DeclarationError`.
    """
    environment, options = task.environment, task.options
    retries = _retries(options.retries)
    cache = cache_of(options.cache if options.cache is not None else environment.cache)
    asked = {
        "cache": None if cache == "disable" else cache,
        "resources": options.resources or environment.resources,
        "secrets": options.secrets or environment.secrets,
        "reusable": task.reusable,
        "interruptible": environment.interruptible,
        "queue": environment.queue,
        "service_account": environment.service_account,
        "pod_template": environment.pod_template,
        "plugin_config": environment.plugin_config,
        **options.others,
    }
    interface = interface_of(task.func, docs=docs)
    if triggers := asked.get("triggers"):
        asked["triggers"] = _triggers(triggers, task.name, interface)
    semantic = SemanticSpec(
        name=task.name,
        environment=environment.name,
        function=task.func.__name__,
        is_async=task.is_async,
        interface_document=_portable(interface.document(), root),
        env_vars={**(environment.env_vars or {}), **(options.env_vars or {})},
        image=image_value(environment.image, root),
    )
    operational = OperationalSpec(
        short_name=task.short_name,
        retries=retries.count,
        backoff=_backoff(retries),
        options={name: json_value(value, root) for name, value in asked.items() if value},
        unannotated=unannotated(task.func),
        **_limits(options.timeout, task.name),
    )
    return TaskSpec(semantic=semantic, operational=operational)


def variable_of(task: Task[..., Any]) -> str | None:
    """Return the variable of its module that holds a task, or else one with the same function."""
    module = sys.modules.get(task.func.__module__)
    variables = list(vars(module).items()) if module else ()
    held = {name: value for name, value in variables if isinstance(value, Task)}
    exact = (name for name, value in held.items() if value is task)
    same = (name for name, value in held.items() if value.func is task.func)
    return next(exact, next(same, None))


def overridden(spec: TaskSpec, given: Mapping[str, Any]) -> TaskSpec:
    """Return `spec` with the options `given` to `override`. Raises `DeclarationError`."""
    changes = check_overrides(spec.name, given)
    if "reusable" in spec.operational.options:
        refuse_for_kept_workers(spec.name, given)
    if "env_vars" in changes:
        changes["env_vars"] = {**spec.semantic.env_vars, **changes["env_vars"]}
    asked = {
        name: _overriding(name, value)
        for name, value in given.items()
        if name not in ("short_name", "retries", "timeout", "env_vars")
    }
    if asked:
        kept = {
            name: value for name, value in spec.operational.options.items() if name not in asked
        }
        changes["options"] = {
            **kept,
            **{name: json_value(value, "") for name, value in asked.items() if value},
        }
    return spec.change(**changes)


def check_overrides(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check options `given` to `override` for the task `name`, and return the changed spec fields.

    Raises `DeclarationError`.
    """
    options = Options.of(given)
    changes: dict[str, Any] = {}
    if "short_name" in given:
        changes["short_name"] = options.short_name
    if "retries" in given:
        retries = _retries(options.retries)
        changes.update(retries=retries.count, backoff=_backoff(retries))
    if "timeout" in given:
        changes.update(_limits(options.timeout, name))
    if "env_vars" in given:
        changes["env_vars"] = options.env_vars or {}
    return changes


def _overriding(name: str, value: Any) -> Any:
    """Return the value of an option that is given to `override`; None removes the option."""
    if name == "cache":
        value = cache_of(value)
    return None if (name, value) in (("cache", "disable"), ("reusable", "off")) else value


def _triggers(given: Any, task: str, interface: Interface) -> list[dict[str, Any]]:
    """Return triggers as JSON values, with wire values of their inputs.

    Raises `DeclarationError` for an input that the task does not take.
    """
    parameters = {parameter.name: parameter for parameter in interface.inputs}
    documents = []
    for trigger in given if isinstance(given, list | tuple) else (given,):
        document = trigger.document()
        values = document.get("inputs", {})
        try:
            interface.refuse_unknown([*values, *document.get("bound", ())])
            wires = {name: parameters[name].dump(value) for name, value in values.items()}
        except InputError as error:
            raise DeclarationError(
                f"The trigger {trigger.name!r} does not fit the task {task}: {error.what}",
                why=error.why,
                hint=error.hint,
            ) from None
        documents.append({**document, **({"inputs": wires} if wires else {})})
    return documents


def _portable(interface: dict[str, Any], root: str) -> JsonObject:
    """Remove defaults that contain a path below `root` from an interface, and return it.

    The task runs from another directory, where its own code computes such defaults anew. Their
    `default_text` stays, with paths relative to `root`.
    """
    for each in interface["inputs"] if root else ():
        if f"{root}/" in each["default_text"] or f'"{root}' in json.dumps(each.get("default", "")):
            each.pop("default", None)
            each["default_text"] = each["default_text"].replace(f"{root}/", "").replace(root, ".")
    return interface


def _limits(given: Any, task: str) -> dict[str, float | None]:
    """Return the limits of time of a spec, in seconds. Raises `DeclarationError`."""
    limit = given if isinstance(given, Timeout) else Timeout(given)
    return {
        "timeout": _seconds(limit.max_runtime, task),
        "max_queued": _seconds(limit.max_queued_time, task),
        "deadline": _seconds(limit.deadline, task),
    }


def _retries(given: int | RetryStrategy) -> RetryStrategy:
    return given if isinstance(given, RetryStrategy) else RetryStrategy(given)


def _backoff(retries: RetryStrategy) -> list[float]:
    return (
        [retries.backoff.seconds(attempt) for attempt in range(2, retries.count + 2)]
        if retries.backoff
        else []
    )


def _seconds(limit: Any, task: str) -> float | None:
    try:
        return (in_seconds(limit) or None) if limit is not None else None
    except (TypeError, ValueError):
        raise DeclarationError(
            f"The timeout of {task} is not a duration",
            why=f"It is {limit!r:.100}.",
            hint="Write a number of seconds or a timedelta, such as timedelta(minutes=5).",
        ) from None
