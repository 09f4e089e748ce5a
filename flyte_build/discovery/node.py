"""Discovery as a node: a file's tasks, found by importing it in a process of its own, and cached.

A result is valid while everything that the import depended on is unchanged: files that it loaded or
opened, names that it looked up in directories (a new file may shadow a module), directories that it
listed, environment variables that it read (only a keyed hash of each value is stored), the
interpreter, the installed distributions and our version. This is like a depfile of Ninja, for
Python. Several results are kept for each file, so that each is found again when branches are
switched.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from flyte_build._version import __version__
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record
from flyte_build.declarations.spec import TaskSpec
from flyte_build.errors import BlobCorrupt, BlobMissing, FlyteError, ModuleLoadError, NoSuchTask
from flyte_build.graph.node import FIRST_TIME, Cheap, Lookup, Made, Outcomes, RecordStore, Resolve
from flyte_build.workspace.workspace import Workspace

from .check import Check, keyed, variable
from .findings import Findings

_KEPT = 16  # Results kept for one file.
_ATTEMPTS = 3  # Imports of a file, if its project is edited during each.
_BASES = {
    "python": "the version of Python changed",
    "executable": "the interpreter changed",
    "prefix": "the interpreter's environment changed",
    "platform": "the platform changed",
    "flyte-build": "the version of flyte-build changed",
    "roots": "the import roots changed",
    "module": "the module name changed",
    "path": "the directories in PYTHONPATH changed",
}
"""Inputs that are known before the import, and the reasons that are reported if they changed."""


class Discovery(Cheap):
    """The tasks of a project's file, in `findings` once resolved.

    `meanwhile` is called during each import of the file. `disturbed` is whether an import may have
    changed files.
    """

    kind = "discovery"
    findings: Findings

    def __init__(
        self,
        workspace: Workspace,
        cache: Cache,
        counters: Counters,
        note: Callable[[str], None],
        read_only: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(workspace.file, f"discovery:{workspace.root}/{workspace.file}")
        self._workspace, self._cache, self._counters, self._note, self._read_only = (
            workspace,
            cache,
            counters,
            note,
            read_only,
        )
        self._meanwhile = meanwhile
        self.disturbed = False
        self._files: Mapping[str, str] = {}

    @cached_property
    def _base(self) -> Mapping[str, Value]:
        """Inputs that are known before the import: the file and the interpreter."""
        workspace = self._workspace
        return {
            "root": workspace.root,
            "file": workspace.file,
            "roots": list(workspace.roots),
            "module": workspace.module,
            "path": [*_python_path()],
            "python": sys.version,
            # A virtual environment has several names for its interpreter.
            "executable": os.path.realpath(sys.executable),
            "prefix": sys.prefix,
            "platform": sys.platform,
            "flyte-build": __version__,
            "variables": {
                name: keyed(self._cache, value)
                for name, value in os.environ.items()
                if name.startswith("PYTHON")
            },
        }

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Return the inputs that are known before the import: the file and the interpreter."""
        return self._base

    def look_up(self, memory: RecordStore, outcomes: Outcomes) -> Lookup:
        """Find a result whose trace matches the current state, or how the newest one differs."""
        base = key(self.kind, self.format, self._base)
        why = ""
        for at, (found, seen) in enumerate(self._cache.records.traces(base, _KEPT)):
            check = Check(self._cache, self._counters, seen)
            different = check.difference()
            if not different:
                record = memory.find(found)
                if record and self._read(record.artifact):
                    if check.refreshed or at:
                        self._cache.records.add_trace(base, found, seen, _KEPT)
                    self._files = {path: known[1] for path, known in seen["files"].items()}
                    return Lookup(self._base, record)
                different = "its result is no longer in the store"
            why = why or different
        last = memory.last(self.label)
        if last is None:
            return Lookup(self._base, None, why or FIRST_TIME)
        return Lookup(
            self._base,
            None,
            self._other_base(last) or why or "the trace of its import is no longer in the cache",
        )

    def _other_base(self, last: Record) -> str:
        """Return which inputs known before the import differ from the last time, or ""."""
        now = {name: _json(self._base[name]) for name in _BASES}
        changed = [
            phrase
            for name, phrase in _BASES.items()
            if last.inputs.get(name, now[name]) != now[name]
        ]
        variables = {*_items(last.inputs.get("variables"))} ^ {*_items(self._base["variables"])}
        names = sorted(
            {name for name, _ in variables}
            - ({"PYTHONPATH"} if _BASES["path"] in changed else set())
        )
        return "; ".join(
            [*changed, *(f"the environment variable {name} changed" for name in names)]
        )

    def _read(self, artifact: Digest) -> bool:
        try:
            self.findings = Findings(json.loads(self._cache.blobs.read(artifact)))
        except BlobCorrupt as error:
            self._note(f"{error.what}; it will be rebuilt.")
            return False
        except BlobMissing:
            return False
        return True

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Import the file in a child process, and again if files were changed during the import.

        Raises `ModuleLoadError`.
        """
        for left in range(_ATTEMPTS - 1, -1, -1):
            answer = _ask(self._workspace, self._meanwhile)
            if "error" in answer:
                raise _load_error(self._workspace, answer["error"])
            if not answer["changed"] or not left:
                break
        self.findings = Findings(answer["document"])
        self._counters.add(**answer["counters"])
        volatile = [
            *answer["volatile"],
            *(f"reads {path}, which changed during the import" for path in answer["changed"]),
        ]
        for what in volatile:
            self._note(f"Importing {self._workspace.file} {what}, so its result is not cached.")
        self.recorded = not volatile
        self.disturbed = bool(answer["wrote"] or volatile)
        seen = answer["seen"]
        self._files = {path: digest for path, (_, digest) in seen["files"].items()}
        seen["environment"] = {name: variable(self._cache, name) for name in seen["environment"]}
        document = json.dumps(answer["document"], sort_keys=True).encode()
        artifact = Digest.of(document) if self._read_only else self._cache.blobs.put(document)
        compared = ("lookups", "folders", "stats", "times", "distributions", "current")
        inputs: dict[str, Value] = {
            **self._base,
            "files": {**self._files},
            "environment": seen["environment"],
            "seen": Digest.of(
                json.dumps([seen[name] for name in compared], sort_keys=True).encode()
            ),
        }
        if self.recorded and not self._read_only:
            base, own = key(self.kind, self.format, self._base), key(self.kind, self.format, inputs)
            self._cache.records.add_trace(base, own, seen, _KEPT)
        return Made(
            artifact,
            (artifact,),
            inputs,
            "" if self.recorded else "its import is not repeatable",
            answer["seconds"],
        )

    @property
    def workspace(self) -> Workspace:
        """Workspace of the project, with all the import roots that were found."""
        return self.findings.placed(self._workspace)

    def contents(self) -> Mapping[str, str]:
        """Return the sha256 (hex) of each file that was imported or read, by path in the tree.

        Digests are of the contents during the import.
        """
        workspace = self.workspace
        paths = (
            (path, workspace.absolute(path))
            for path in (*self.findings.modules, *self.findings.read)
        )
        return {path: self._files[file] for path, file in paths if file in self._files}

    def task(self, name: str) -> TaskSpec:
        """Return the spec of the task in the variable `name` of the file.

        `MODULE:VARIABLE` is the place of one that can be reached from there. Raises `NoSuchTask`.
        """
        tasks = self.findings.tasks
        if ":" in name:
            environments = self.findings.reachable
            tasks = {each.place: each for env in environments for each in env.tasks.values()}
        if name not in tasks:
            from flyte_build.text.wording import listed, nearest

            near = nearest(name, tasks)
            raise NoSuchTask(
                f"There is no task {name!r} in {self._workspace.file}",
                why=f"It defines {listed(tasks) or 'no tasks'}.",
                hint=(
                    f"Did you mean {near!r}?"
                    if near
                    else "Give the name of a variable: that of a function with `@env.task`."
                ),
            )
        return tasks[name]


def _ask(workspace: Workspace, meanwhile: Callable[[], None]) -> dict[str, Any]:
    import subprocess

    request = {
        "root": workspace.root,
        "file": workspace.file,
        "module": workspace.module,
        "roots": workspace.roots,
        "last": workspace.last,
    }
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", "from flyte_build.discovery.child import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Makes hashes, and so the order of sets, the same each time.
        env={"PYTHONHASHSEED": "0", **os.environ},
    )
    try:
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # The child has ended already; its exit code is reported below.
        meanwhile()
        output, _ = child.communicate()
    except BaseException:
        child.kill()
        child.wait()
        raise
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        ended = (
            f"signal {-child.returncode}"
            if child.returncode < 0
            else f"exit code {child.returncode}"
        )
        raise ModuleLoadError(
            f"Importing {workspace.file} terminated the process ({ended})",
            why="Its tasks could therefore not be found.",
            hint=f"Run `python {workspace.file}` to find the cause.",
        ) from None
    return answer


def _load_error(workspace: Workspace, error: dict[str, str]) -> FlyteError:
    file, root = workspace.file, workspace.root
    if error["what"]:
        place = f"{error['place']}: " if error["place"] else ""
        return ModuleLoadError(f"{place}{error['what']}", why=error["why"], hint=error["hint"])
    if error["type"] in ("SyntaxError", "IndentationError", "TabError"):
        return ModuleLoadError(
            f"{error['place'] or file}: syntax error: {error['message']}",
            hint="Fix it, and run the command again.",
        )
    hint = "Fix it, and run the command again."
    if "circular import" in error["message"]:
        hint = (
            "Two modules import each other: move what both need to a third one, or import one of"
            " them inside of a function."
        )
    elif error["module"]:
        hint = _missing_module(error["module"], root)
    return ModuleLoadError(
        f"Importing {file} failed{' at ' + error['place'] if error['place'] else ''}:"
        f" {error['type']}: {error['message']}",
        why=error["traceback"].rstrip(),
        hint=hint,
    )


def _missing_module(module: str, root: str) -> str:
    """Return advice about a module that was not found: the project's own, or a package's."""
    package, _, rest = module.partition(".")
    if package == "flyte":
        return "flyte-build has no module of this name; docs/migrating.md lists what it has."
    folder = f"{root}/{package}"
    if rest and os.path.isdir(folder):
        from flyte_build.text.wording import listed, nearest

        parts = sorted(
            name.removesuffix(".py")
            for name in os.listdir(folder)
            if (name.endswith(".py") and name != "__init__.py") or os.path.isdir(f"{folder}/{name}")
        )
        parts = [part for part in parts if part.isidentifier() and not part.startswith("__")]
        near = nearest(rest.partition(".")[0], parts)
        guess = f" Did you mean {package}.{near}?" if near else ""
        found = listed(parts, 10) or "no modules"
        return f"The package {package!r} is in the project; it contains {found}.{guess}"
    return (
        f"Install {package!r} into this Python, or check the name. The project's root, {root}, is"
        " on `sys.path`."
    )


def _python_path() -> list[str]:
    """Return the directories in `PYTHONPATH` as absolute paths."""
    given = os.environ.get("PYTHONPATH", "")
    # An empty entry stands for the current directory.
    return [os.path.abspath(entry) for entry in given.split(os.pathsep)] if given else []


def _json(value: Value) -> Any:
    return json.loads(json.dumps(value))


def _items(mapping: Any) -> Iterable[tuple[str, Any]]:
    return mapping.items() if isinstance(mapping, Mapping) else ()
