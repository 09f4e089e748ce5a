"""Recording of everything that an import depends on, and of anything that makes it unrepeatable.

Accesses to files and directories are seen through Python's audit hooks (PEP 578), and to
environment variables through the class of `os.environ`. `os.stat` and similar functions, which have
no audit events, are wrapped; calls of the C functions by other ways are not seen. Use it only in a
process of its own: audit hooks cannot be removed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import Any

from flyte_build._alias import PACKAGE
from flyte_build.cas.statindex import UNTRUSTED, Row, row
from flyte_build.workspace.import_hooks import is_installed, is_own, is_stdlib

from .clocks import watching as watching_clocks

_PROCESSES = frozenset(
    (
        "subprocess.Popen",
        "os.system",
        "os.posix_spawn",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "pty.spawn",
    )
)
_NETWORK = frozenset(
    (
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.sendto",
        "urllib.Request",
    )
)
_SOCKETS = frozenset(("socket.__new__", "socket.bind"))
_CHANGES = frozenset(
    (
        "os.link",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.symlink",
        "os.truncate",
        "sqlite3.connect",
    )
)
_UNSTABLE = ("/proc/", "/sys/", "/dev/")
_METADATA = (
    "importlib/metadata/__init__.py",
    "importlib_metadata/__init__.py",
    "pkg_resources/__init__.py",
)
_ASKING = ("stat", "lstat", "access", "readlink")
_AGES = ("getmtime", "getctime", "getatime")
# Modules that Python itself imports when it starts.
OF_THE_INTERPRETER = ("sitecustomize", "usercustomize")
_IMPORTLIB = "<frozen importlib"


class Watch:
    """Accesses of an import, with absolute paths.

    `files` were read, and `opened` has their states at that time. `folders` were listed, and
    `distributions` were listed for installed packages only. `stats` are paths whose `stat` was
    read, and `times` those whose times were. `lookups` maps directories to the names that were
    looked up in them. `names` are the modules that were looked up by name, and `environment` the
    variables that were read ("*" for all). `volatile` are reasons why the import is not repeatable.
    `uses_current` is whether the result depends on the `current` directory, and `wrote` whether
    files may have been changed.
    """

    def __init__(self, root: str, current: str) -> None:
        self.root, self.current = root, current
        self.files: set[str] = set()
        self.opened: dict[str, Row] = {}
        self.folders: set[str] = set()
        self.distributions: set[str] = set()
        self.stats: set[str] = set()
        self.times: set[str] = set()
        self.lookups: dict[str, set[str]] = {}
        # Modules imported at the start of the interpreter were looked up by name as well.
        self.names = set(sys.modules)
        self.environment: set[str] = set()
        self.volatile: list[str] = []
        self.uses_current = False
        self.wrote = False
        self._on = False
        self._getcwd, self._stat = os.getcwd, os.stat

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the accesses of the body. Use it at most once in a process."""
        watch = self

        class Environ(type(os.environ)):  # type: ignore[misc]  # A class without a public name.
            def __getitem__(self, name: Any) -> Any:
                watch._variable(name)
                return super().__getitem__(name)

            def __iter__(self) -> Iterator[Any]:
                watch._variable("*")
                return iter(list(super().__iter__()))

            def __len__(self) -> int:
                watch._variable("*")
                return int(super().__len__())

        os.environ.__class__ = os.environb.__class__ = Environ
        sys.addaudithook(self._audit)
        sys.meta_path.insert(0, self)
        wrapped: list[tuple[ModuleType, str, Callable[..., Any]]] = [
            *((os, name, self._asking(getattr(os, name), self.stats)) for name in _ASKING),
            *((os.path, name, self._asking(getattr(os.path, name), self.times)) for name in _AGES),
            *((os, name, self._locating(getattr(os, name))) for name in ("getcwd", "getcwdb")),
        ]
        originals = [(module, name, getattr(module, name)) for module, name, _ in wrapped]
        for module, name, function in wrapped:
            setattr(module, name, function)
        self._on = True
        try:
            with watching_clocks(self._clock):
                yield
        finally:
            self._on = False
            for module, name, function in originals:
                setattr(module, name, function)
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Record the lookup of `name`, and return None, so that other finders are asked."""
        self.names.add(name)
        for folder in sys.path if path is None else path:
            self.look_up(folder, name.rpartition(".")[2])
        return None

    def look_up(self, folder: str, name: str) -> None:
        """Record that a module of that name was looked up in `folder`."""
        # Python skips entries that are not strings.
        if isinstance(folder, str) and os.path.isabs(folder) and not is_stdlib(folder):
            self.lookups.setdefault(os.path.normpath(folder), set()).add(name)

    def _variable(self, name: Any) -> None:
        if self._on and isinstance(name, str | bytes):
            self.environment.add(os.fsdecode(name))

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(path, (str, bytes)) and isinstance(flags, int):
                self._open(os.fsdecode(path), flags)
        elif event in _CHANGES:
            self.wrote = True
        elif event in ("os.listdir", "os.scandir"):
            caller = sys._getframe(1).f_code.co_filename
            if caller.startswith(_IMPORTLIB) or isinstance(args[0], int):
                return  # A finder fills its cache; `lookups` has the relevant names.
            self._path(
                self.distributions if caller.endswith(_METADATA) else self.folders,
                os.fsdecode(args[0] or "."),
            )
        elif event in _PROCESSES:
            self._say(f"starts a process ({event})")
        elif event in _NETWORK or (event in _SOCKETS and self._caller(sys._getframe(1))):
            self._say(f"opens a network connection ({event})")

    def _open(self, path: str, flags: int) -> None:
        access = flags & os.O_ACCMODE
        if access == os.O_RDONLY or (access == os.O_RDWR and not flags & os.O_TRUNC):
            self._path(self.files, path)
            name = self._absolute(path)
            if name in self.files and name not in self.opened:
                self.opened[name] = state_of(name, self._stat)
        if access != os.O_RDONLY and self._absolute(path).startswith(self.root + "/"):
            self.wrote = True

    def _absolute(self, path: str) -> str:
        return os.path.normpath(path if os.path.isabs(path) else f"{self._getcwd()}/{path}")

    def _path(self, into: set[str], path: str) -> None:
        if not os.path.isabs(path):
            self.uses_current = True
        path = self._absolute(path)
        if not path.startswith(_UNSTABLE) and not path.endswith(".pyc") and not is_stdlib(path):
            into.add(path)

    def _asking(self, function: Callable[..., Any], into: set[str]) -> Callable[..., Any]:
        def ask(path: Any, *args: Any, **kwargs: Any) -> Any:
            if (
                self._on
                and isinstance(path, (str, bytes, os.PathLike))
                and kwargs.get("dir_fd") is None
            ):
                name = os.fsdecode(path)
                if not is_installed(name) and not self._is_finder(sys._getframe(1)):
                    self._path(into, name)
            return function(path, *args, **kwargs)

        return ask

    def _locating(self, function: Callable[[], Any]) -> Callable[[], Any]:
        def locate() -> Any:
            if self._on and self._on_behalf(sys._getframe(1)):
                self.uses_current = True
            return function()

        return locate

    def _clock(self, name: str, frame: FrameType | None) -> None:
        if self._on and (where := self._caller(frame)):
            self._say(f"reads the clock or random numbers ({name}, {where})")

    def _caller(self, frame: FrameType | None) -> str:
        """Return the place FILE:LINE in the user's code that made a call, or "".

        It is "" if the call was made by the import system or by a library, rather than by the
        user's code (directly, or through the standard library).
        """
        while frame is not None and is_stdlib(frame.f_code.co_filename):
            if frame.f_code.co_filename.startswith(_IMPORTLIB):
                return ""
            frame = frame.f_back
        if frame is None or not self._is_own(frame):
            return ""
        return f"{os.path.relpath(frame.f_code.co_filename, self.root)}:{frame.f_lineno}"

    def _on_behalf(self, frame: FrameType | None) -> bool:
        """Whether the user's code made a call, directly or through libraries, but not by import."""
        while frame is not None and not frame.f_code.co_filename.startswith(_IMPORTLIB):
            if self._is_own(frame):
                return True
            frame = frame.f_back
        return False

    def _is_finder(self, frame: FrameType | None) -> bool:
        """Whether a call is made by our own finder; `lookups` has the relevant names."""
        while frame is not None and is_stdlib(frame.f_code.co_filename):
            frame = frame.f_back
        return frame is not None and frame.f_code.co_filename == is_own.__code__.co_filename

    def _is_own(self, frame: FrameType) -> bool:
        name = frame.f_code.co_filename
        return os.path.isabs(name) and not name.startswith(_OURS) and is_own(name)

    def _say(self, what: str) -> None:
        if what not in self.volatile:
            self.volatile.append(what)


def state_of(path: str, stat: Callable[[str], os.stat_result] = os.stat) -> Row:
    """Return the state of the file that a path leads to, or `UNTRUSTED`, which equals no state."""
    try:
        return row(stat(path))
    except OSError:
        return UNTRUSTED


_OURS = os.path.realpath(PACKAGE) + "/"
