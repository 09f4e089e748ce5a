"""Watching what an import touches: files, folders, names looked up, environment variables, and what makes it volatile.

Files and folders are seen through Python's audit hooks (PEP 578); environment variables through `os.environ`'s class;
`os.stat`, which has no audit event, through a wrapper (what calls the C function by another way is not seen); clocks and
random numbers through a profile function. This is for a process of its own: what is hooked stays hooked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any

from .importing import is_installed, is_stdlib

_PROCESSES = frozenset(("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty", "pty.spawn"))
_NETWORK = frozenset(("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"))
_SOCKETS = frozenset(("socket.__new__", "socket.bind"))
_CLOCKS = frozenset(
    ["time", "time_ns", "localtime", "gmtime", "ctime", "now", "utcnow", "today", "urandom", "getrandbits", "random", "uuid1", "uuid4"]
)
_CLOCK_OWNERS = ("time", "datetime", "date", "posix", "Random", "_random", "uuid")
_CHANGES = frozenset(("os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate", "sqlite3.connect"))
_UNSTABLE = ("/proc/", "/sys/", "/dev/")
_SHELL = frozenset(("_", "SHLVL", "OLDPWD"))  # A shell changes these with every command.


class Watch:
    """What was seen. Paths are absolute; `lookups` has, for each folder, the names that were looked for in it.

    `wrote` says that something below the root may have been changed.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.files: set[str] = set()
        self.folders: set[str] = set()
        self.stats: set[str] = set()
        self.lookups: dict[str, set[str]] = {}
        self.environment: set[str] = set()
        self.volatile: list[str] = []
        self.wrote = False
        self._on = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the body. Once in the life of a process."""
        watch = self

        class Environ(type(os.environ)):  # type: ignore[misc]  # A class without a public name.
            def __getitem__(self, name: str) -> str:
                watch._variable(name)
                return str(super().__getitem__(name))

            def __iter__(self) -> Iterator[str]:
                names = list(super().__iter__())
                watch._variable("*")
                return iter(names)

        os.environ.__class__ = Environ
        sys.addaudithook(self._audit)
        sys.meta_path.insert(0, self)
        stat, lstat, access = os.stat, os.lstat, os.access
        os.stat, os.lstat, os.access = self._stating(stat), self._stating(lstat), self._stating(access)
        self._on = True
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._on = False
            os.stat, os.lstat, os.access = stat, lstat, access
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Remember that `name` was looked for; never finds anything."""
        for folder in sys.path if path is None else path:
            self.look_up(folder, name.rpartition(".")[2])
        return None

    def look_up(self, folder: str, name: str) -> None:
        """Remember that a module of that name was looked for in `folder`."""
        folder = os.path.abspath(folder)
        if not is_stdlib(folder + "/"):
            self.lookups.setdefault(folder, set()).add(name)

    def _variable(self, name: str) -> None:
        if self._on and isinstance(name, str | bytes):
            self.environment.update({os.fsdecode(name)} - _SHELL)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open":
            path, mode, flags = args
            reading = not (flags & (os.O_WRONLY | os.O_RDWR)) if isinstance(flags, int) else True
            if isinstance(path, (str, bytes)) and reading and not (mode and set(mode) & set("wax")):
                self._path(self.files, os.fsdecode(path))
            elif isinstance(path, (str, bytes)) and os.path.abspath(os.fsdecode(path)).startswith(self.root + "/"):
                self.wrote = True
        elif event in _CHANGES:
            self.wrote = True
        elif event in ("os.listdir", "os.scandir"):
            if sys._getframe(1).f_code.co_filename.startswith("<frozen importlib"):
                return  # A finder fills its cache: `lookups` hold what counts of that.
            self._path(self.folders, os.fsdecode(args[0] or ".") if not isinstance(args[0], int) else "/dev/")
        elif event in _PROCESSES:
            self._say(f"starts a process ({event})")
        elif event in _NETWORK or (event in _SOCKETS and self._caller(sys._getframe(1))):
            self._say(f"opens a network connection ({event})")

    def _path(self, into: set[str], path: str) -> None:
        path = os.path.abspath(path)
        if not path.startswith(_UNSTABLE) and not path.endswith(".pyc") and not is_stdlib(path):
            into.add(path)

    def _stating(self, function: Any) -> Any:
        def stat(path: Any, *args: Any, **kwargs: Any) -> Any:
            if self._on and isinstance(path, (str, bytes, os.PathLike)) and kwargs.get("dir_fd") is None:
                name = os.path.abspath(os.fsdecode(path))
                if name.startswith(self.root + "/") and not is_installed(name):
                    self.stats.add(name)
            return function(path, *args, **kwargs)

        return stat

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call":
            name = arg.__name__
            if name in _CLOCKS:
                owner = arg.__self__ if arg.__self__ is not None else arg
                owners = (getattr(owner, "__name__", ""), type(owner).__name__)
                if any(o in _CLOCK_OWNERS for o in owners) and (where := self._caller(frame)):
                    self._say(f"reads the clock or random numbers ({name}, {where})")

    def _caller(self, frame: FrameType | None) -> str:
        """Where the user's own code made this call, or "" when it was made by somebody's import or library."""
        while frame is not None and is_stdlib(frame.f_code.co_filename):
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                return ""
            frame = frame.f_back
        if frame is None or is_installed(frame.f_code.co_filename) or not frame.f_code.co_filename.startswith(self.root + "/"):
            return ""
        return f"{os.path.relpath(frame.f_code.co_filename, self.root)}:{frame.f_lineno}"

    def _say(self, what: str) -> None:
        if what not in self.volatile:
            self.volatile.append(what)
