"""Description of an imported module: its tasks, the files it needs, and the import's trace."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType
from typing import Any

from flyte_build._alias import PACKAGE
from flyte_build.cas.counters import Counters
from flyte_build.cas.statindex import TICK, hash_file, trusted
from flyte_build.declarations.describe import task_spec
from flyte_build.declarations.environment import Environment, TaskEnvironment
from flyte_build.declarations.serialize import image_value
from flyte_build.declarations.spec import EnvironmentSpec, TaskSpec
from flyte_build.declarations.task import Task
from flyte_build.workspace import sensitive
from flyte_build.workspace.import_hooks import is_ours, is_own, loaded_modules, plain
from flyte_build.workspace.workspace import Workspace

from .import_roots import Module, left_out, own_path, real_files, with_roots
from .static_imports import Imports
from .trace import OF_SHELLS, candidates, distributions, names_in, presence, times
from .watch import OF_THE_INTERPRETER, Watch, state_of


def describe(
    module: ModuleType, workspace: Workspace, here: str, watch: Watch, began: int
) -> dict[str, Any]:
    """Return discovery's document and the trace of the import, as a JSON value.

    `here` is the current directory if it is the last entry of `sys.path`, else "". `began` is the
    start of the import in ns: files changed since then are listed as `changed`.
    """
    named = loaded_modules()
    loaded = {file for _, file in named}
    own = [
        (name, file)
        for name, file in sorted(named)
        if is_own(file) and not is_ours(name) and name not in OF_THE_INTERPRETER
    ]
    found = [Module(name, file, name in watch.names) for name, file in own]
    later = Imports(watch.look_up, is_own, is_ours).reachable(
        (each.name, each.file) for each in found
    )
    found += [
        Module(name, plain(file)) for file, name in later.items() if plain(file) not in loaded
    ]
    # Including entries that the import added.
    path = [entry for entry in own_path(workspace) if entry != here]
    modules = list(real_files(workspace, found))
    workspace, files = with_roots(workspace, modules, path, here)
    read = sorted(_places(workspace, filter(_is_data, watch.files), files) - files.keys())
    loose = left_out(modules, files.values())
    document = _document(module, workspace, sorted(files), read, loose)
    counters = Counters()
    ours = os.path.realpath(PACKAGE) + "/"
    describing = {file for _, file in loaded_modules() if file.startswith(ours)}
    seen, changed = _seen({*loaded, *describing, *files.values()}, here, watch, counters, began)
    return {
        "document": document,
        "seen": seen,
        "volatile": watch.volatile,
        "changed": [os.path.relpath(name, workspace.root) for name in changed],
        "wrote": watch.wrote,
        "counters": counters.snapshot(),
    }


def _document(
    module: ModuleType,
    workspace: Workspace,
    modules: Sequence[str],
    read: Sequence[str],
    loose: Sequence[str],
) -> dict[str, Any]:
    """Return discovery's document.

    `modules` and `read` are sorted paths in the tree; `loose` are files that have no path in it.
    """
    environments = _environments(module)
    return {
        "module": module.__name__,
        "file": workspace.file,
        "roots": list(workspace.roots),
        "last": list(workspace.last),
        "beside": dict(workspace.beside),
        "modules": modules,
        "native": [name for name in modules if name.endswith(tuple(EXTENSION_SUFFIXES))],
        "loose": loose,
        "read": [name for name in read if not sensitive.by_name(name)],
        "withheld": [workspace.shown(name) for name in read if sensitive.by_name(name)],
        "include": sorted(
            {include for environment in environments for include in _includes(environment)}
        ),
        "tasks": {
            name: task_spec(task, workspace.root).document()
            for name, task in vars(module).items()
            if isinstance(task, Task)
        },
        "environments": {
            name: value.name
            for name, value in vars(module).items()
            if isinstance(value, TaskEnvironment)
        },
        "reachable": [
            _environment_spec(environment, module, workspace).document()
            for environment in environments
        ],
    }


def _is_data(path: str) -> bool:
    return is_own(path) and os.path.isfile(path)


def _places(workspace: Workspace, paths: Iterable[str], modules: Iterable[str]) -> set[str]:
    """Return the paths in the tree of files that were read, below the root and other import roots.

    If an import root outside of the root contains the project, or is the home directory, only files
    in the top-level directories of modules imported from there are included.
    """
    found = {
        place
        for path in paths
        for place in workspace.places(path) or workspace.places(os.path.realpath(path))
    }
    home = os.path.realpath(os.path.expanduser("~"))
    wide = {
        place
        for place, folder in workspace.beside.items()
        if f"{workspace.root}/".startswith(folder.rstrip("/") + "/") or folder == home
    }
    tops = {"/".join(name.split("/")[:3]) for name in modules}
    return {
        each
        for each in found
        if "/".join(each.split("/")[:2]) not in wide or "/".join(each.split("/")[:3]) in tops
    }


def _environments(module: ModuleType) -> list[Environment]:
    declared: list[Environment] = [
        value for value in vars(module).values() if isinstance(value, TaskEnvironment)
    ]
    declared += [value.environment for value in vars(module).values() if isinstance(value, Task)]
    return list(
        {id(each): each for environment in declared for each in environment.reachable()}.values()
    )


def _includes(environment: Environment) -> list[tuple[str, str]]:
    folder = os.path.dirname(os.path.realpath(environment.declared_in))
    return [(folder, pattern) for pattern in environment.include]


def _environment_spec(
    environment: Environment, module: ModuleType, workspace: Workspace
) -> EnvironmentSpec:
    root = workspace.root
    declared = os.path.realpath(environment.declared_in)
    return EnvironmentSpec(
        name=environment.name,
        file=next(iter(workspace.places(declared)), "") if is_own(declared) else "",
        description=environment.description or "",
        depends_on=sorted({each.name for each in environment.depends_on}),
        image=image_value(environment.image, root),
        tasks={
            task.func.__name__: _found_again(task, module, root)
            for task in environment.tasks.values()
        },
    )


def _found_again(task: Task[..., Any], main: ModuleType, root: str) -> TaskSpec:
    """Return a task's spec, with the module and the variable that locate the task."""
    spec = task_spec(task, root)
    for module in (main, sys.modules.get(task.func.__module__)):
        for name, value in vars(module).items() if module else ():
            if value is task:
                return spec._replace(module=module.__name__ if module else "", variable=name)
    return spec._replace(module=task.func.__module__, variable="")


def _seen(
    loaded: set[str], here: str, watch: Watch, counters: Counters, began: int
) -> tuple[dict[str, Any], list[str]]:
    """Return the trace of the import, and the files that were changed since it began.

    The result is valid as long as the state in the trace is unchanged.
    """
    for folder, names in list(watch.lookups.items()):
        for name in names:
            # Depends also on whether the directory is a regular package.
            if os.path.isdir(f"{folder}/{name}"):
                watch.look_up(f"{folder}/{name}", "__init__")
    # Including those that do not exist yet.
    folders = [folder for folder in sys.path if isinstance(folder, str) and os.path.isabs(folder)]
    path_files = {
        f"{folder}/{name}"
        for folder in folders
        for name in distributions(folder)
        if name.endswith(".pth")
    }
    files, changed = {}, []
    for path in sorted(loaded | watch.files | path_files):
        try:
            found = os.stat(path)
            if stat.S_ISREG(found.st_mode):
                reading = hash_file(os.path.realpath(path), counters)
                files[path] = [list(trusted(reading.state, began)), reading.digest.hex]
                # Its ctime, since any process may set the mtime.
                is_late = reading.state[3] >= began - TICK
                if (
                    is_late
                    or watch.opened.get(path, reading.state) != reading.state
                    or state_of(path) != reading.state
                ):
                    changed.append(path)
            else:
                watch.stats.add(path)
        except OSError:
            files[path] = [[], ""]
    seen = {
        "files": files,
        "lookups": {
            folder: [[], *_named(folder, names)]
            for folder, names in sorted(watch.lookups.items())
            if folder != here
        },
        "folders": {folder: names_in(folder) for folder in sorted(watch.folders)},
        "stats": {path: presence(path) for path in sorted(watch.stats)},
        "times": {path: times(path) for path in sorted(watch.times)},
        "environment": sorted(
            watch.environment - (OF_SHELLS if "*" in watch.environment else set())
        ),
        "distributions": {
            folder: [[], distributions(folder)]
            for folder in sorted({*folders, *watch.distributions} - {here})
        },
        "current": _current(here, watch),
    }
    return seen, changed


def _current(here: str, watch: Watch) -> tuple[list[str], list[str], str]:
    """Return how the import depended on the current directory.

    That is: the module names that were found in no other directory, the candidates for them in the
    current directory, and its path, or "" if neither a candidate nor the code depends on it.
    """
    modules = {name for name in watch.names if "." not in name}
    names = sorted(
        name for name in modules | watch.lookups.get(here, set()) if _origin(name) in ("", here)
    )
    found = candidates(here, names) if here else []
    return names, found, watch.current if found or watch.uses_current else ""


def _origin(name: str) -> str:
    """Return the directory that a top-level module was found in, or "" if it was not found."""
    module = sys.modules.get(name)
    if module is None:
        return ""
    file: str | None = getattr(module, "__file__", None) or next(
        iter(getattr(module, "__path__", ())), None
    )
    if file is None:
        return "built in"
    folder = os.path.dirname(file)
    return (
        os.path.dirname(folder)
        if os.path.basename(file).partition(".")[0] == "__init__"
        else folder
    )


def _named(folder: str, names: set[str]) -> tuple[list[str], list[str]]:
    return sorted(names), candidates(folder, names)
