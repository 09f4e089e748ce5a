"""What discovery found: the tasks of a module, the files that it needs, and what the finding depended on."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from flyte_build.bundler import secrets
from flyte_build.bundler.imports import reachable
from flyte_build.cas.counters import Counters
from flyte_build.cas.statindex import hash_file, trusted

from .declared import image_value, json_value
from .environment import TaskEnvironment
from .errors import DeclarationError
from .importing import below, loaded_files
from .interface import interface_of, unannotated
from .observe import Watch
from .resources import RetryStrategy, Timeout
from .task import Options, Task
from .watched import candidates, distributions, names_in, presence


def describe(module: ModuleType, loaded: set[str], root: str, file: str, roots: Sequence[str], watch: Watch, began: int) -> dict[str, Any]:
    """Discovery's document, and what was seen while it was made, as JSON values.

    `loaded` are the files of all modules, `began` is when the import began, in ns: a file that was changed since makes the result volatile.
    """
    modules = sorted(path for name in loaded if (path := below(root, name)))
    modules = sorted({*modules, *reachable(root, roots, modules, watch.look_up)})
    read = sorted(path for name in watch.files if os.path.isfile(name) and (path := below(root, name)) and path not in modules)
    environments = _environments(module)
    document = {
        "module": module.__name__,
        "file": file,
        "roots": list(roots),
        "modules": modules,
        "read": [path for path in read if not secrets.by_name(path)],
        "withheld": [path for path in read if secrets.by_name(path)],
        "include": sorted({include for environment in environments for include in _includes(environment, root)}),
        "tasks": {name: describe_task(task, root) for name, task in vars(module).items() if isinstance(task, Task)},
        "environments": {name: value.name for name, value in vars(module).items() if isinstance(value, TaskEnvironment)},
        "reachable": [_describe_environment(environment, module, root) for environment in environments],
    }
    counters = Counters()
    ours = os.path.dirname(os.path.realpath(__file__)) + "/"
    describing = {path for path in loaded_files() if path.startswith(ours)}
    return {
        "document": document,
        "seen": _seen(root, loaded | describing, modules, watch, counters, began),
        "volatile": watch.volatile,
        "wrote": watch.wrote,
        "counters": counters.snapshot(),
    }


def _environments(module: ModuleType) -> list[TaskEnvironment]:
    declared = [value for value in vars(module).values() if isinstance(value, TaskEnvironment)]
    declared += [value.environment for value in vars(module).values() if isinstance(value, Task)]
    return list({id(each): each for environment in declared for each in environment.reachable()}.values())


def _includes(environment: TaskEnvironment, root: str) -> list[tuple[str, str]]:
    folder = os.path.relpath(os.path.dirname(os.path.realpath(environment.declared_in)), root)
    return [("" if folder == "." else folder, pattern) for pattern in environment.include]


def _describe_environment(environment: TaskEnvironment, module: ModuleType, root: str) -> dict[str, Any]:
    """All that deploying an environment needs to know of it, as a JSON value: `file` declares it ("": none of the project's)."""
    return {
        "name": environment.name,
        "file": below(root, os.path.realpath(environment.declared_in)) or "",
        "description": environment.description or "",
        "depends_on": sorted({each.name for each in environment.depends_on}),
        "image": image_value(environment.image, root),
        "tasks": {task.func.__name__: {**describe_task(task, root), **_place(task, module)} for task in environment.tasks.values()},
    }


def _place(task: Task[..., Any], main: ModuleType) -> dict[str, str]:
    """The module and the variable under which a task is found again; no variable if there is none."""
    for module in (main, sys.modules.get(task.func.__module__)):
        for name, value in vars(module).items() if module else ():
            if value is task:
                return {"module": module.__name__ if module else "", "variable": name}
    return {"module": task.func.__module__, "variable": ""}


def describe_task(task: Task[..., Any], root: str = "") -> dict[str, Any]:
    """All that running a task needs to know of it, as a JSON value. Paths below `root` are relative to it."""
    environment, options = task.environment, task.options
    limit = _limit(options.timeout)
    cache = options.cache if options.cache is not None else environment.cache
    asked = {
        "cache": None if cache in ("disable", "disabled") else cache,
        "resources": options.resources or environment.resources,
        "secrets": options.secrets or environment.secrets,
        "reusable": options.reusable or environment.reusable,
        "interruptible": environment.interruptible,
        "queue": environment.queue,
        "service_account": environment.service_account,
        "pod_template": environment.pod_template,
        "plugin_config": environment.plugin_config,
        "max_queued_time": limit.max_queued_time,
        **options.others,
    }
    return {
        "name": task.name,
        "environment": environment.name,
        "function": task.func.__name__,
        "short_name": task.short_name,
        "async": task.is_async,
        "interface": interface_of(task.func, docs=True).document(),
        "env_vars": {**(environment.env_vars or {}), **(options.env_vars or {})},
        **_retries(options.retries),
        "timeout": _seconds(limit, task.name),
        "image": image_value(environment.image, root),
        "options": {name: json_value(value, root) for name, value in asked.items() if value},
        "unannotated": unannotated(task.func),
    }


def overridden(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a task's description that change with options as `override` takes them. Raises `DeclarationError`."""
    options = Options.of(given)
    asked = {name: value for name, value in given.items() if name not in ("short_name", "retries", "timeout", "env_vars")}
    changes: dict[str, Any] = {}
    if "short_name" in given:
        changes["short_name"] = options.short_name
    if "retries" in given:
        changes.update(_retries(options.retries))
    if "timeout" in given:
        changes["timeout"] = _seconds(_limit(options.timeout), spec["name"])
    if "env_vars" in given:
        changes["env_vars"] = {**spec["env_vars"], **(options.env_vars or {})}
    if asked:
        kept = {name: value for name, value in spec["options"].items() if name not in asked}
        changes["options"] = {**kept, **{name: json_value(value, "") for name, value in asked.items() if value}}
    return changes


def _limit(timeout: Any) -> Timeout:
    return timeout if isinstance(timeout, Timeout) else Timeout(timeout)


def _retries(given: int | RetryStrategy) -> dict[str, Any]:
    retries = given if isinstance(given, RetryStrategy) else RetryStrategy(given)
    backoff = [retries.backoff.seconds(attempt) for attempt in range(2, retries.count + 2)] if retries.backoff else []
    return {"retries": retries.count, "backoff": backoff}


def _seconds(limit: Timeout, task: str) -> float | None:
    try:
        return limit.seconds()
    except (TypeError, ValueError):
        raise DeclarationError(
            f"The timeout of {task} is no duration",
            why=f"It is {limit.max_runtime!r:.100}.",
            hint="For example: timeout=timedelta(minutes=5), or a number of seconds.",
        ) from None


def _seen(root: str, loaded: set[str], modules: list[str], watch: Watch, counters: Counters, began: int) -> dict[str, Any]:
    for folder, names in list(watch.lookups.items()):
        for name in names:
            if os.path.isdir(f"{folder}/{name}"):  # Whether it is a package, or only a folder, decides too.
                watch.look_up(f"{folder}/{name}", "__init__")
    files = {}
    for path in sorted(loaded | watch.files | {f"{root}/{name}" for name in modules}):
        try:
            found = os.stat(path)
            if stat.S_ISREG(found.st_mode):
                reading = hash_file(os.path.realpath(path), counters)
                files[path] = [list(trusted(reading.state, began)), reading.digest.hex]
                if max(reading.state[2], reading.state[3]) >= began:
                    watch.volatile.append(f"reads {os.path.relpath(path, root)}, which was changed meanwhile")
            elif not stat.S_ISDIR(found.st_mode):
                continue
        except OSError:
            files[path] = [[], ""]
    return {
        "files": files,
        "lookups": {folder: [[], *_named(folder, names)] for folder, names in sorted(watch.lookups.items())},
        "folders": {folder: names_in(folder) for folder in sorted(watch.folders)},
        "stats": {path: presence(path) for path in sorted(watch.stats)},
        "environment": sorted(watch.environment),
        "distributions": {folder: [[], distributions(folder)] for folder in sys.path if os.path.isdir(folder)},
    }


def _named(folder: str, names: set[str]) -> tuple[list[str], list[str]]:
    return sorted(names), candidates(folder, names)
