"""Discovery as a node: which tasks a file holds, found by importing it in a process of its own, and
remembered.

A result counts while all that the import touched is as it was: the files that it loaded or opened,
the names that it looked for in directories (a new file may shadow a module), directories that it
listed, environment variables that it read (a keyed hash of each value is kept, never the value),
the interpreter, the installed distributions and our version. Several results are kept for a file,
so that switching branches finds each of them again. (Ninja's depfile, for Python.)
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

_KEPT = 16  # Results for one file.
_ATTEMPTS = 3  # Imports of a file whose project is edited meanwhile.
_BASES = {
    "python": "another version of Python",
    "executable": "another interpreter",
    "prefix": "another environment of the interpreter",
    "platform": "another platform",
    "flyte-build": "another version of flyte-build",
    "roots": "its import roots changed",
    "module": "it has another module name",
    "path": "PYTHONPATH names other directories",
}
"""What is known before the import, and what is said when it is not as it was."""


class Discovery(Cheap):
    """The tasks of a project's file. Once resolved, `findings` hold what was found.

    While the file is imported, `meanwhile` is called once; `disturbed` says that the import may
    have changed files.
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
        """What is known before the import: the file, and what runs it."""
        workspace = self._workspace
        return {
            "root": workspace.root,
            "file": workspace.file,
            "roots": list(workspace.roots),
            "module": workspace.module,
            "path": [*_python_path()],
            "python": sys.version,
            # An environment has several names for its one interpreter.
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
        """What is known before the import: the file, and what runs it."""
        return self._base

    def look_up(self, memory: RecordStore, outcomes: Outcomes) -> Lookup:
        """The result whose touched things are all as they were, or what is different from the
        newest one.
        """
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
                different = "what was found is not in the store any more"
            why = why or different
        last = memory.last(self.label)
        if last is None:
            return Lookup(self._base, None, why or FIRST_TIME)
        return Lookup(
            self._base,
            None,
            self._other_base(last) or why or "what its import saw is not known any more",
        )

    def _other_base(self, last: Record) -> str:
        """What is different from the last time of what is known before the import, or ""."""
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
            self._note(f"{error.what}; it is made again.")
            return False
        except BlobMissing:
            return False
        return True

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Import the file in a child process; again if files were changed meanwhile. Raises
        `ModuleLoadError`.
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
            *(f"reads {path}, which is changed meanwhile" for path in answer["changed"]),
        ]
        for what in volatile:
            self._note(
                f"Importing {self._workspace.file} {what}, so it is imported anew each time."
            )
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
            "" if self.recorded else "importing it is not repeatable",
            answer["seconds"],
        )

    @property
    def workspace(self) -> Workspace:
        """The project with all the import roots that were found."""
        return self.findings.placed(self._workspace)

    def contents(self) -> Mapping[str, str]:
        """The sha256 (hex) of each file of the project that was imported or read, by its path in
        the tree, as of the import.
        """
        workspace = self.workspace
        paths = (
            (path, workspace.absolute(path))
            for path in (*self.findings.modules, *self.findings.read)
        )
        return {path: self._files[file] for path, file in paths if file in self._files}

    def task(self, name: str) -> TaskSpec:
        """The spec of the task that stands under the variable `name`. Raises `NoSuchTask`."""
        tasks = self.findings.tasks
        if name not in tasks:
            from flyte_build.text.wording import listed, nearest

            near = nearest(name, tasks)
            raise NoSuchTask(
                f"There is no task {name!r} in {self._workspace.file}",
                why=f"It holds {listed(tasks) or 'no tasks'}.",
                hint=(
                    f"Did you mean {near!r}?"
                    if near
                    else "A task is a function below `@env.task`, named by its variable."
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
        # What is made of sets and hashes is the same each time.
        env={"PYTHONHASHSEED": "0", **os.environ},
    )
    try:
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended already, and its exit code is what there is to say.
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
            f"Importing {workspace.file} ended its process ({ended})",
            why="So its tasks are not known.",
            hint=f"Try `python {workspace.file}`.",
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
            hint="Mend it, and run the command again.",
        )
    hint = "Mend it, and run the command again."
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
    """The directories that `PYTHONPATH` names, which may be relative to the current one."""
    given = os.environ.get("PYTHONPATH", "")
    # An empty entry is the current directory.
    return [os.path.abspath(entry) for entry in given.split(os.pathsep)] if given else []


def _json(value: Value) -> Any:
    return json.loads(json.dumps(value))


def _items(mapping: Any) -> Iterable[tuple[str, Any]]:
    return mapping.items() if isinstance(mapping, Mapping) else ()
