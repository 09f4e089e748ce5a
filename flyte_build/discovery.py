"""Discovery as a node: which tasks a file holds, found by importing it in a process of its own, and remembered.

A result counts while all that the import touched is as it was: the files that it loaded or opened, the names that it
looked for in folders (a new file may shadow a module), folders that it listed, environment variables that it read (a keyed
hash of each value is kept, never the value), the interpreter, the installed distributions and our version. Several
results are kept for a file, so that switching branches finds each of them again. (Ninja's depfile, for Python.)
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.statindex import hash_file, row, trusted
from flyte_build.errors import BlobCorrupt, BlobMissing, FlyteError, ModuleLoadError, NoSuchTask

from ._version import __version__
from .graph import FIRST_TIME, Cheap, Found, Made, Memory, Outcomes, Resolve
from .project import Project

_KEPT = 16  # Results for one file.


class Discovery(Cheap):
    """The tasks of a project's file. Once resolved, `document` holds what was found.

    While the file is imported, `meanwhile` is called once; `disturbed` says that the import may have changed files.
    """

    kind = "discovery"

    def __init__(
        self,
        project: Project,
        cache: Cache,
        counters: Counters,
        said: Callable[[str], None],
        dry: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(project.file, f"discovery:{project.root}/{project.file}")
        self._project, self._cache, self._counters, self._said, self._dry = project, cache, counters, said, dry
        self._base: Mapping[str, Value] = {
            "root": project.root,
            "file": project.file,
            "roots": list(project.roots),
            "module": project.module,
            "python": sys.version,
            "executable": os.path.realpath(sys.executable),  # An environment has several names for its one interpreter.
            "prefix": sys.prefix,
            "platform": sys.platform,
            "flyte-build": __version__,
            "variables": {name: _keyed(cache, value) for name, value in os.environ.items() if name.startswith("PYTHON")},
        }
        self._meanwhile = meanwhile
        self.disturbed = False
        self.document: dict[str, Any] = {}

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """What is known before the import: the file, and what runs it."""
        return self._base

    def look_up(self, memory: Memory, outcomes: Outcomes) -> Found:
        """The result whose touched things are all as they were, or what is different from the newest one."""
        why = FIRST_TIME
        base = key(self.kind, self.format, self._base)
        for at, (found, seen) in enumerate(self._cache.records.traces(base, _KEPT)):
            check = _Check(self._cache, self._counters, seen)
            different = check.difference()
            if not different:
                record = memory.find(found)
                if record and self._read(record.artifact):
                    if check.refreshed or at:
                        self._cache.records.add_trace(base, found, seen, _KEPT)
                    return Found(self._base, record)
                different = "what was found is not in the store any more"
            if not at:
                why = different
        return Found(self._base, None, why)

    def _read(self, artifact: Digest) -> bool:
        try:
            self.document = json.loads(self._cache.blobs.read(artifact))
        except BlobCorrupt as error:
            self._said(f"{error.what}; it is made again.")
            return False
        except BlobMissing:
            return False
        return True

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Import the file in a child process. Raises `ModuleLoadError`."""
        answer = _ask(self._project, self._meanwhile)
        if "error" in answer:
            raise _load_error(self._project.file, answer["error"])
        self.document = answer["document"]
        self._counters.add(**answer["counters"])
        for what in answer["volatile"]:
            self._said(f"Importing {self._project.file} {what}, so it is imported anew each time.")
        self.recorded = not answer["volatile"]
        self.disturbed = bool(answer["wrote"] or answer["volatile"])
        seen = answer["seen"]
        seen["environment"] = {name: _variable(self._cache, name) for name in seen["environment"]}
        document = json.dumps(self.document, sort_keys=True).encode()
        artifact = Digest.of(document) if self._dry else self._cache.blobs.put(document)
        inputs: dict[str, Value] = {
            **self._base,
            "files": {path: digest for path, (_, digest) in seen["files"].items()},
            "environment": seen["environment"],
            "seen": Digest.of(json.dumps([seen[name] for name in ("lookups", "folders", "stats")], sort_keys=True).encode()),
        }
        if self.recorded and not self._dry:
            base, own = key(self.kind, self.format, self._base), key(self.kind, self.format, inputs)
            self._cache.records.add_trace(base, own, seen, _KEPT)
        return Made(artifact, (artifact,), inputs, "" if self.recorded else "importing it is not repeatable", answer["seconds"])

    def task(self, name: str) -> dict[str, Any]:
        """What was found of the task that stands under the variable `name`. Raises `NoSuchTask`."""
        tasks: dict[str, dict[str, Any]] = self.document["tasks"]
        if name not in tasks:
            from difflib import get_close_matches

            from .texts import listed

            near = get_close_matches(name, tasks, 1)
            raise NoSuchTask(
                f"There is no task {name!r} in {self._project.file}",
                why=f"It holds {listed(tasks) or 'no tasks'}.",
                hint=f"Did you mean {near[0]!r}?" if near else "A task is a function below `@env.task`, named by its variable.",
            )
        return tasks[name]


class _Check:
    """Compares what was seen with what is there now; states that can be trusted by now are put into `seen`."""

    def __init__(self, cache: Cache, counters: Counters, seen: dict[str, Any]) -> None:
        self._cache, self._counters, self._seen = cache, counters, seen
        self.refreshed = False

    def difference(self) -> str:
        """The first things that differ, for people, or ""."""
        from .watched import candidates, distributions, names_in, presence

        changed = [path for path, known in self._seen["files"].items() if self._file_changed(path, known)]
        if changed:
            ours = os.path.dirname(os.path.realpath(__file__)) + "/"
            names = list(dict.fromkeys("flyte-build itself" if path.startswith(ours) else os.path.basename(path) for path in changed))
            return f"{', '.join(names[:5])} changed"
        for name, value in self._seen["environment"].items():
            if _variable(self._cache, name) != value:
                return "an environment variable changed" if name == "*" else f"the environment variable {name} changed"
        for folder, known in self._seen["lookups"].items():
            if self._folder_changed(folder, known) and (now := candidates(folder, known[1])) != known[2]:
                return f"in {folder}: {', '.join(sorted(set(now) ^ set(known[2])))} appeared or vanished"
        for folder, known in self._seen["distributions"].items():
            if self._folder_changed(folder, known) and distributions(folder) != known[1]:
                return f"other packages are installed in {folder}"
        for folder, names in self._seen["folders"].items():
            if names_in(folder) != names:
                return f"the folder {folder} holds other names"
        for path, known in self._seen["stats"].items():
            if presence(path) != known:
                return f"{path} appeared, vanished or changed"
        return ""

    def _file_changed(self, path: str, known: list[Any]) -> bool:
        try:
            found = os.stat(path)
        except OSError:
            return bool(known[1])
        self._counters.add(files_stated=1)
        if known[0] and row(found) == tuple(known[0]):
            return False
        if not stat.S_ISREG(found.st_mode):
            return True
        reading = hash_file(os.path.realpath(path), self._counters)
        if reading.digest.hex == known[1] and reading.trusted:
            known[0], self.refreshed = list(reading.trusted), True
        return bool(reading.digest.hex != known[1])

    def _folder_changed(self, folder: str, known: list[Any]) -> bool:
        """Whether a folder may hold other names than when its state was taken."""
        began = time.time_ns()
        try:
            found = row(os.stat(folder))
        except OSError:
            return True
        if known[0] and found == tuple(known[0]):
            return False
        state = trusted(found, began)
        if state:
            # Taken before the names are compared; if they differ, the whole is not used.
            known[0], self.refreshed = list(state), True
        return True


def _ask(project: Project, meanwhile: Callable[[], None]) -> dict[str, Any]:
    import subprocess

    request = {"root": project.root, "file": project.file, "module": project.module, "roots": project.roots, "last": project.last}
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", "from flyte_build.discover import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
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
        ended = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
        raise ModuleLoadError(
            f"Importing {project.file} ended its process ({ended})", why="So its tasks are not known.", hint=f"Try `python {project.file}`."
        ) from None
    return answer


def _load_error(file: str, error: dict[str, str]) -> FlyteError:
    if error["what"]:
        place = f"{error['place']}: " if error["place"] else ""
        return ModuleLoadError(f"{place}{error['what']}", why=error["why"], hint=error["hint"])
    if error["type"] in ("SyntaxError", "IndentationError", "TabError"):
        return ModuleLoadError(f"{error['place'] or file}: syntax error: {error['message']}", hint="Mend it, and run the command again.")
    hint = "Mend it, and run the command again."
    if error["module"]:
        hint = f"Install {error['module'].partition('.')[0]!r} into this Python, or check the name. The project's root is on `sys.path`."
    return ModuleLoadError(
        f"Importing {file} failed{' at ' + error['place'] if error['place'] else ''}: {error['type']}: {error['message']}",
        why=error["traceback"].rstrip(),
        hint=hint,
    )


def _variable(cache: Cache, name: str) -> str | None:
    if name == "*":
        names = sorted(each for each in os.environ if each not in ("_", "SHLVL", "OLDPWD"))
        return _keyed(cache, json.dumps([[each, os.environ[each]] for each in names]))
    value = os.environ.get(name)
    return None if value is None else _keyed(cache, value)


def _keyed(cache: Cache, value: str) -> str:
    """A hash that only this cache can make, so that it gives nothing away about the value."""
    return hashlib.blake2b(value.encode("utf-8", "surrogateescape"), key=cache.secret, digest_size=16).hexdigest()
