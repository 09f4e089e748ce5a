"""Scans of the files below a root, without reading unchanged files again.

A scan remembers every directory in the stat index: its listing, and the result. A directory whose
listing is unchanged costs one `stat` for each name; in any other, every file that is not in a
remembered state is read again.
"""

from __future__ import annotations

import marshal
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from flyte_build.cas.blobs import Blobs
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.statindex import Row, StatIndex, changed_since, hash_file, row, stamp, trusted
from flyte_build.errors import ScanError

from .draft import Draft, Drafts, Unread, pack
from .listing import RULE_FILES, VENV, Listing, look, states
from .snapshot import Contents, File, Folder, Scan

if TYPE_CHECKING:
    from flyte_build.workspace.ignore import Rules

    from .budget import Budget

Progress = Callable[[int, int], None]

_RULES = 2  # Raised when new rules for secrets are added, so that all files are read again.
_VENV_RULE = "built in: a virtual environment (it contains pyvenv.cfg)"


class ScanOptions(NamedTuple):
    """Options of a scan.

    Paths in `allowed` may contain a secret; `progress` is called with the numbers of files read and
    to read. What is found lies below `place` in the tree, while messages and `allowed` use `shown`
    followed by the relative path.
    """

    budget: Budget | None = None
    allowed: frozenset[str] = frozenset()
    progress: Progress = lambda done, total: None
    place: str = ""
    shown: str = ""


class Scanner:
    """Scanner of the files below one root.

    A large tree of which nothing is remembered is read by two processes, and packed into `blobs` on
    the way, if given.
    """

    def __init__(
        self,
        root: str,
        index: StatIndex,
        counters: Counters,
        options: ScanOptions = ScanOptions(),
        *,
        contents: Contents | None = None,
        blobs: Blobs | None = None,
    ) -> None:
        self._root, self._index, self._counters, self._blobs = root, index, counters, blobs
        self._budget, self._allowed, self._progress, self._place, self._shown = options
        self._rules: dict[str, Rules] = {}
        self._contents = contents or Contents()

    @property
    def budget(self) -> Budget:
        """Limits of the bundle."""
        from .budget import Budget

        return self._budget or Budget()

    def beside(self, folder: str, place: str, shown: str) -> Scanner:
        """Return a scanner of another directory for the same tree; its files lie below `place`."""
        options = ScanOptions(self._budget, self._allowed, self._progress, place, shown)
        return Scanner(
            folder,
            self._index,
            self._counters,
            options,
            contents=self._contents,
            blobs=self._blobs,
        )

    def scan_all(self) -> Scan:
        """Scan everything below the root that the ignore rules do not exclude.

        Raises `SecretRefused`, `BudgetExceeded`, `FileUnstable`, or `ScanError` for something that
        a bundle cannot contain.
        """
        from .budget import Meter

        scope, started = f"tree {_RULES}:{self._root}", stamp()
        before = {
            folder: Folder(*known)
            for folder, known in self._index.load(scope).items()
            if len(known) == len(Folder._fields)
        }
        folders: dict[str, Folder | Draft] = {}
        self._rules = {}
        meter = Meter(self.budget)
        waiting = [("", True)]
        while waiting:
            folder, valid = waiting.pop()
            old, began = before.get(folder), time.time_ns()
            try:
                listing = look(f"{self._root}/{folder}", old.excluded if old and valid else ())
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unreadable(self._shown + folder, error) from error
            now: Folder | Draft
            if old and valid and pack(listing) == old.look:
                now = old
            else:
                now, valid = self._look_again(folder, listing, old, valid, began)
            folders[folder] = now
            meter.enter(folder, now.taken, now.size)
            waiting += [(below, valid) for below in now.below]
        self._counters.add(files_stated=sum([now.taken for now in folders.values()]))
        drafts = [now for now in folders.values() if isinstance(now, Draft)]
        self._read(drafts, all_new=not before)
        found = {
            folder: self._with_links(folder, now.folder() if isinstance(now, Draft) else now)
            for folder, now in folders.items()
        }
        changed = {folder: tuple(now) for folder, now in found.items() if now != before.get(folder)}
        self._index.save(scope, changed, before.keys() - found.keys())
        self._refuse_secrets(found)
        return self._scan(found, before, self._is_recent(drafts, started))

    def scan_files(self, paths: Iterable[str], besides: Sequence[Scan] = ()) -> Scan:
        """Scan just the files with these relative paths, and the links that lead to them.

        Missing files, and files in the scans `besides`, are left out.
        """
        from . import links

        scope, started = f"files {_RULES}:{self._root}", stamp()
        remembered: dict[str, tuple[Row, File, str]] = self._index.load(scope)
        now, before = Drafts(), Drafts()
        for path in sorted(
            {part for wanted in paths for part in links.resolve(self._root, wanted)}
        ):
            if any(scan.holds(path) for scan in besides):
                continue
            try:
                state = row(os.lstat(f"{self._root}/{path}"))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _unreadable(self._shown + path, error) from error
            if stat.S_ISDIR(state[0]):  # A link's target, whose files are requested by name.
                continue
            draft, name = now.at(path)
            draft.seen[name] = state
            old = remembered.get(path)
            if old:
                before.at(path)[0].take(name, *old)
            if old and old[0] == state and not stat.S_ISLNK(state[0]):
                draft.take(name, *old)
            else:
                self._take(draft, name, state, time.time_ns())
        self._read(list(now.drafts.values()))
        self._counters.add(files_stated=sum([draft.taken for draft in now.drafts.values()]))
        known = [each for draft in now.drafts.values() for each in draft.known()]
        self._index.save(
            scope, {path: each for path, each in known if each != remembered.get(path)}
        )
        found = now.folders()
        self._refuse_secrets(found)
        return self._scan(found, before.folders(), self._is_recent(now.drafts.values(), started))

    def _scan(self, found: dict[str, Folder], before: dict[str, Folder], is_recent: bool) -> Scan:
        return Scan(
            found, before, self._contents, is_recent=is_recent, place=self._place, shown=self._shown
        )

    def _with_links(self, folder: str, now: Folder) -> Folder:
        """Update the targets of links in a directory: other links on their way may have changed."""
        if not now.links:
            return now
        from . import links

        files = now.unpacked()
        for name in now.links:
            target = links.target(self._root, folder + name, self._shown)
            files[os.fsencode(name)] = ("l", len(target), target)
        packed = marshal.dumps(files, 2)
        return (
            now
            if packed == now.files
            else now._replace(files=packed, size=sum([file[1] for file in files.values()]))
        )

    def _is_recent(self, drafts: Iterable[Draft], started: int) -> bool:
        """Whether anything may have changed since the scan started (see `stamp`).

        If so, files that were scanned earlier may be out of date.
        """
        for draft in drafts:
            states = [state for state in draft.seen.values() if state]
            try:
                states.append(row(os.stat(f"{self._root}/{draft.path}")))
            except FileNotFoundError:
                return True
            if any(changed_since(state, started) for state in states):
                return True
        return False

    def remembered(self, *scans: Scan) -> Digest | None:
        """Return the remembered digest of the tree of these scans, if nothing has changed since."""
        return self._told([scan.state for scan in scans])

    def remembered_before(self, *scans: Scan) -> Digest | None:
        """Return the remembered digest of the tree with which these scans were compared."""
        return self._told([scan.state_before for scan in scans])

    def _told(self, states: list[bytes]) -> Digest | None:
        known = self._index.load(f"digest:{self._root}").get(str(len(states)))
        return Digest(known[1]) if known and known[0] == states else None

    def remember(self, tree: Digest, *scans: Scan) -> Digest:
        """Remember the digest of the tree of these scans, and return it."""
        self._index.save(
            f"digest:{self._root}", {str(len(scans)): ([scan.state for scan in scans], str(tree))}
        )
        return tree

    def _look_again(
        self, folder: str, listing: Listing, old: Folder | None, valid: bool, began: int
    ) -> tuple[Draft, bool]:
        """Scan a directory whose listing has changed.

        Returns its draft, and whether the remembered verdicts of the ignore rules are valid below
        it.
        """
        now, before = states(listing), states(marshal.loads(old.look)) if old else {}
        files = old.unpacked() if old else {}
        valid = valid and all(now.get(name) == before.get(name) for name in RULE_FILES)
        draft, rules = Draft(folder, now), None
        for tag, state in now.items():
            name, slash, _ = tag.partition("/")
            if old and valid and tag in before:
                rule = old.excluded.get(name + slash)
            else:
                rules = rules or self._rules_of(folder)
                rule = rules.excludes(folder + name, bool(slash)) or (
                    _VENV_RULE if tag.endswith(VENV) else None
                )
            if rule:
                draft.excluded[name + slash] = rule
                if name in RULE_FILES and state:
                    draft.states[name] = trusted(state, began)
            elif slash:
                draft.below.append(f"{folder}{name}/")
            else:
                try:
                    state = state or row(os.lstat(f"{self._root}/{folder}{name}"))
                except FileNotFoundError:
                    continue
                draft.seen[name] = state
                file = files.get(os.fsencode(name)) if before.get(tag) == state else None
                if file and file[0] != "l":
                    draft.take(name, state, file, old.secrets.get(name, "") if old else "")
                else:
                    self._take(draft, name, state, began)
        return draft, valid

    def _take(self, draft: Draft, name: str, state: Row, began: int) -> None:
        """Add a new file or link to a draft; files are read later."""
        if stat.S_ISREG(state[0]):
            draft.unread.append(Unread(draft, name, state))
        elif stat.S_ISLNK(state[0]):
            from . import links

            target = links.target(self._root, draft.path + name, self._shown)
            draft.take(name, trusted(state, began), ("l", len(target), target))
        else:
            raise _special(self._shown + draft.path + name)

    def _rules_of(self, folder: str) -> Rules:
        if folder not in self._rules:
            from flyte_build.workspace.ignore import RuleFile, Rules

            above = folder[:-1].rpartition("/")
            rules = self._rules_of(above[0] + above[1]) if folder else Rules.built_in()
            files = []
            for name in RULE_FILES:
                path = f"{self._root}/{folder}{name}"
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(
                        path, encoding="utf-8-sig", errors="surrogateescape", newline=""
                    ) as file:
                        files.append(RuleFile.parse(folder, name, file.read()))
            self._rules[folder] = rules.within(files)
        return self._rules[folder]

    def _read(self, drafts: list[Draft], all_new: bool = False) -> None:
        """Read all unread files.

        `all_new` means that the drafts are all directories, and nothing was remembered of any.
        """
        unread = [each for draft in drafts for each in draft.unread]
        if not unread:
            return
        from flyte_build.workspace import sensitive

        if all_new:
            from . import parallel_scan

            unread = parallel_scan.read(
                self._root, drafts, self._blobs, self._contents, self._counters, self._progress
            )
        for done, each in enumerate(unread):
            if not done % 256:
                self._progress(done, len(unread))
            path = each.path
            watch = sensitive.ContentWatch(path)
            try:
                found = hash_file(f"{self._root}/{path}", self._counters, Contents.FILE, watch.feed)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unreadable(self._shown + path, error) from error
            if found.data is not None:
                self._contents.keep(self._place + path, found.data)
            mode, size = found.state[:2]
            file = ("x" if mode & 0o100 else "f", size, found.digest.hex.encode())
            each.draft.take(each.name, found.trusted, file, sensitive.by_name(path) or watch.found)
        for draft in drafts:
            draft.unread.clear()

    def _refuse_secrets(self, folders: dict[str, Folder]) -> None:
        found = [
            (self._shown + folder + name, why)
            for folder, known in folders.items()
            for name, why in known.secrets.items()
        ]
        if found:
            from flyte_build.workspace import sensitive

            sensitive.refuse(found, self._allowed)


def _special(path: str) -> ScanError:
    return ScanError(
        f"{path} is neither a file, a directory nor a link",
        why="Sockets, pipes and devices cannot be in a bundle.",
        hint=f"Remove it, or add `/{path}` to `.flyteignore`.",
    )


def _unreadable(path: str, error: OSError) -> ScanError:
    return ScanError(
        f"Cannot read {path or 'the root'}",
        why=error.strerror or str(error),
        hint=f"Make it readable, or add `/{path.rstrip('/')}` to `.flyteignore`.",
    )
