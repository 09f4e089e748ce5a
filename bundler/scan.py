"""Scanning: what is below a root, without reading again what has not changed.

A scan remembers (in the stat index, for each root) every folder's files with their state and digest, and every verdict
of the ignore rules. A name in a state that is remembered costs one `stat`; anything else is looked at anew.
"""

from __future__ import annotations

import marshal
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.statindex import StatIndex, fingerprint, hash_file, row, trusted
from flyte_build.errors import ScanError, SecretRefused

from .budget import Budget, Meter
from .snapshot import Contents, Folder, Known, Scan

if TYPE_CHECKING:
    from .ignore import Rules

Progress = Callable[[int, int], None]

_RULE_FILES = (".gitignore", ".flyteignore")
_VENV_MARK = "pyvenv.cfg"
_VENV_RULE = f"built in: a virtual environment (it holds {_VENV_MARK})"


class Scanner:
    """Scans below one root; a path in `allowed` (relative) may hold a secret."""

    def __init__(
        self,
        root: str,
        index: StatIndex,
        counters: Counters,
        *,
        budget: Budget = Budget(),
        allowed: Callable[[], frozenset[str]] = frozenset,
        progress: Progress = lambda done, total: None,
    ) -> None:
        self._root, self._index, self._counters = root, index, counters
        self._budget, self._allowed, self._progress = budget, allowed, progress
        self._rules: dict[str, Rules] = {}
        self._contents = Contents()

    def scan_all(self) -> Scan:
        """Everything below the root but what the ignore rules keep out.

        Raises `SecretRefused`, `BudgetExceeded`, `FileUnstable`, or `ScanError` for what cannot be in a bundle.
        """
        scope = f"tree:{self._root}"
        remembered, checksum_before = self._index.load(scope)
        checksum = checksum_before
        before: dict[str, Folder] = remembered or {}
        folders: dict[str, Folder] = {}
        pending: list[tuple[str, str]] = []
        meter = Meter(self._budget)
        unchanged, stated = True, 0
        stack = [("", True)]
        while stack:
            folder, valid = stack.pop()
            old = before.get(folder, {})
            try:
                with os.scandir(f"{self._root}/{folder}") as names:
                    entries = list(names)
            except FileNotFoundError:
                unchanged = False
                continue
            except OSError as error:
                raise _unreadable(folder, error) from error
            began = time.time_ns()
            rules = [_state(entry) for entry in entries if entry.name in _RULE_FILES and entry.is_file(follow_symlinks=False)]
            valid = valid and old.get("") == ("r", tuple(rules))
            now: Folder = {"": ("r", tuple([state and trusted(state, began) for state in rules]))}
            size = 0
            for entry in entries:
                name = entry.name
                known = old.get(name) if valid else None
                if known is None:
                    pass
                elif known[0] == "f":
                    stated += 1
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        unchanged = False
                        continue
                    # Written out here, since this is done for every file each time.
                    if (found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino) == known[1]:
                        now[name] = known
                        size += known[3]
                        continue
                elif _still(entry, known):
                    now[name] = known
                    if known[0] == "d":
                        stack.append((f"{folder}{name}/", valid))
                    continue
                unchanged = False
                verdict = self._verdict(folder, entry)
                if verdict is not None:
                    now[name] = verdict
                    if verdict[0] == "d":
                        stack.append((f"{folder}{name}/", valid))
                    continue
                stated += 1
                previous, state = old.get(name), _state(entry)
                if previous and previous[0] == "f" and previous[1] == state:
                    now[name] = previous
                elif state:
                    now[name] = ("f", (), "", state[1], False, "")
                    pending.append((folder, name))
                size += state[1] if state else 0
            unchanged = unchanged and len(now) == len(old)
            folders[folder] = now
            meter.enter(folder, len(now), size)
        unchanged = unchanged and len(folders) == len(before)
        self._counters.add(files_stated=stated)
        self._hash(folders, pending)
        if not unchanged:
            checksum = self._index.save(scope, folders)
        self._refuse_secrets(folders)
        return Scan(self._root, folders, unchanged, checksum, before, checksum_before, self._contents)

    def scan_files(self, paths: Iterable[str]) -> Scan:
        """Just the files of these relative paths, and the links that lead to them; paths that are gone are left out."""
        scope = f"files:{self._root}"
        before: dict[str, Folder] = self._index.load(scope)[0] or {}
        folders: dict[str, Folder] = {}
        pending: list[tuple[str, str]] = []
        count = 0
        for path in sorted({part for wanted in paths for part in resolve_links(self._root, wanted)}):
            head, slash, name = path.rpartition("/")
            folder = head + slash
            old = before.get(folder, {}).get(name)
            try:
                found = os.lstat(f"{self._root}/{path}")
            except FileNotFoundError:
                continue
            count += 1
            if old and old[1] == row(found):
                known = old
            elif stat.S_ISLNK(found.st_mode):
                known = self._link(path, row(found))
            elif stat.S_ISREG(found.st_mode):
                known = ("f", (), "", found.st_size, False, "")
                pending.append((folder, name))
            else:
                raise _special(path)
            folders.setdefault(folder, {})[name] = known
        self._counters.add(files_stated=count)
        self._hash(folders, pending)
        unchanged = all(before.get(folder, {}).get(name) == known for folder, names in folders.items() for name, known in names.items())
        if not unchanged:
            self._index.save(scope, _merged(before, folders))
        self._refuse_secrets(folders)
        asked = {folder: {name: old for name in names if (old := before.get(folder, {}).get(name))} for folder, names in folders.items()}
        states = [fingerprint(marshal.dumps(each, 2)) for each in (folders, asked)]
        return Scan(self._root, folders, unchanged, states[0], asked, states[1], self._contents)

    def remembered(self, *scans: Scan) -> Digest | None:
        """The digest of the tree that these scans make, if it was told when they had found exactly the same."""
        return self._told([scan.state for scan in scans])

    def remembered_before(self, *scans: Scan) -> Digest | None:
        """The digest that was told of the tree that these scans compared with."""
        return self._told([scan.state_before for scan in scans])

    def _told(self, states: list[bytes]) -> Digest | None:
        known, _ = self._index.load(f"digest{len(states)}:{self._root}")
        return Digest(known[1]) if known and known[0] == states else None

    def remember(self, tree: Digest, *scans: Scan) -> Digest:
        """Remember the digest of the tree that these scans make."""
        self._index.save(f"digest{len(scans)}:{self._root}", ([scan.state for scan in scans], str(tree)))
        return tree

    def _verdict(self, folder: str, entry: os.DirEntry[str]) -> Known | None:
        """What is to be known of a name, or None for a regular file."""
        path, is_folder = folder + entry.name, entry.is_dir(follow_symlinks=False)
        rule = self._rules_of(folder).excludes(path, is_folder)
        if rule is None and _venv(entry):
            rule = _VENV_RULE
        if rule is not None:
            return ("i", is_folder, rule)
        if is_folder:
            return ("d",)
        if entry.is_symlink():
            return self._link(path, _state(entry))
        if not entry.is_file(follow_symlinks=False):
            raise _special(path)
        return None

    def _rules_of(self, folder: str) -> "Rules":
        if folder not in self._rules:
            from .ignore import RuleFile, Rules

            above = folder[:-1].rpartition("/")
            rules = self._rules_of(above[0] + above[1]) if folder else Rules.built_in()
            files = []
            for name in _RULE_FILES:
                path = f"{self._root}/{folder}{name}"
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                        files.append(RuleFile.parse(folder, name, file.read()))
            self._rules[folder] = rules.within(files)
        return self._rules[folder]

    def _link(self, path: str, state: tuple[int, ...]) -> Known:
        from .tree import stays_inside

        target = os.readlink(f"{self._root}/{path}")
        root, real = os.path.realpath(self._root), os.path.realpath(f"{self._root}/{path}")
        if not (real + "/").startswith(root + "/"):
            raise ScanError(
                f"The link {path} leads out of the project, to {target}",
                why="A bundle holds what is below the root; the file would not be there when the task runs.",
                hint=f"Copy the file into the project, or add `/{path}` to `.flyteignore`.",
            )
        if not stays_inside(os.fsencode(path), os.fsencode(target)):  # It comes back in: written so that it never leaves.
            target = os.path.relpath(real, os.path.dirname(f"{root}/{path}"))
        return ("l", state, target)

    def _hash(self, folders: dict[str, Folder], pending: list[tuple[str, str]]) -> None:
        if not pending:
            return
        from . import secrets

        contents = self._contents
        for done, (folder, name) in enumerate(pending):
            if not done % 256:
                self._progress(done, len(pending))
            path = folder + name
            watch = secrets.ContentWatch(path)
            try:
                found = hash_file(f"{self._root}/{path}", self._counters, Contents.FILE, watch.feed)
            except FileNotFoundError:
                del folders[folder][name]
                continue
            except OSError as error:
                raise _unreadable(path, error) from error
            if found.data is not None:
                contents.keep(path, found.data)
            mode, size = found.state[:2]
            secret = secrets.by_name(path) or watch.found
            folders[folder][name] = ("f", found.trusted, found.digest.hex, size, bool(mode & 0o100), secret)

    def _refuse_secrets(self, folders: dict[str, Folder]) -> None:
        found = [
            (folder + name, known[5]) for folder, names in folders.items() for name, known in names.items() if known[0] == "f" and known[5]
        ]
        if found:
            allowed = self._allowed()
            found = sorted((path, why) for path, why in found if path not in allowed)
        if found:
            listed = "".join(f"\n  {path}: {why}" for path, why in found[:20]) + ("\n  ..." if len(found) > 20 else "")
            raise SecretRefused(
                f"{len(found)} {'file' if len(found) == 1 else 'files'} with secrets would have gone into the bundle:{listed}",
                why="A bundle is kept in caches and registries, where everyone who reads them reads it.",
                hint=f"Add `/{found[0][0]}` to `.flyteignore`; or, if it may be shared, allow it in flyte.toml:\n"
                f'  bundle.allow_secrets = ["{found[0][0]}"]',
            )


def resolve_links(root: str, path: str) -> Iterator[str]:
    """The relative paths that make `path` reachable below `root`: each link on the way, and where it ends."""
    at, seen = path.split("/"), 0
    done: list[str] = []
    while at:
        done.append(at.pop(0))
        here = "/".join(done)
        if os.path.islink(f"{root}/{here}") and seen < 40:
            seen += 1
            yield here
            target = os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(f"{root}/{here}")), os.readlink(f"{root}/{here}")))
            inside = os.path.relpath(target, os.path.realpath(root))
            if inside.startswith(".."):
                return  # Reported when the link is looked at.
            at, done = [part for part in inside.split("/") if part != "."] + at, []
    yield "/".join(done)


def _state(entry: os.DirEntry[str]) -> tuple[int, ...]:
    try:
        return row(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return ()


def _venv(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and os.path.exists(f"{entry.path}/{_VENV_MARK}")


def _still(entry: os.DirEntry[str], known: Known) -> bool:
    """Whether a link, a folder or something excluded is still what is known of it."""
    if known[0] == "l":
        return bool(_state(entry) == known[1])
    if entry.is_dir(follow_symlinks=False) != (known[0] == "d" or known[1]):
        return False
    was_venv: bool = known[-1] == _VENV_RULE
    return (known[0] == "i" and not was_venv) or _venv(entry) == was_venv


def _merged(before: dict[str, Folder], now: dict[str, Folder]) -> dict[str, Folder]:
    merged = {folder: dict(names) for folder, names in before.items()} if len(before) < 10_000 else {}
    for folder, names in now.items():
        merged.setdefault(folder, {}).update(names)
    return merged


def _special(path: str) -> ScanError:
    return ScanError(
        f"{path} is neither a file, a folder nor a link",
        why="Sockets, pipes and devices cannot be in a bundle.",
        hint=f"Remove it, or add `/{path}` to `.flyteignore`.",
    )


def _unreadable(path: str, error: OSError) -> ScanError:
    return ScanError(
        f"{path or 'The root'} could not be read",
        why=error.strerror or str(error),
        hint=f"Make it readable, or add `/{path.rstrip('/')}` to `.flyteignore`.",
    )
