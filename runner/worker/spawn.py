"""Start of a worker's process.

This module imports next to nothing, so that a command can start a worker first of all.
"""

from __future__ import annotations

import os
import sys

from .process_tree import signal_group, signal_tree

TYPE_CHECKING = False  # Type checkers know this name; importing `typing` takes too long here.
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


CONTROL = 3  # The file descriptor on which a worker listens.
_KILL = 9


class Worker:
    """A worker that is a child of this process, and leads a process group.

    `control` is its pipe, or its socket if it `sends_result`, and `output` maps descriptors to read
    from to streams (1 or 2).
    """

    why = ""
    ends_when_asked = True

    def __init__(
        self, pid: int, control: int, output: dict[int, int], *, sends_result: bool = False
    ) -> None:
        self.pid, self.control, self.output = pid, control, output
        self.sends_result = sends_result
        self._end: int | None = None

    @property
    def end(self) -> int | None:
        """A descriptor that is readable when it has ended; None where the system has none."""
        if self._end is None:
            try:
                self._end = os.pidfd_open(self.pid)
            except (AttributeError, OSError):  # Not Linux, an old one, or no more descriptors.
                return None
        return self._end

    def learn(self, packages: Sequence[str]) -> None:
        """Do nothing: each process is started anew."""

    def has_ended(self) -> bool:
        """Whether it has ended; the rest of its process group is killed then."""
        if not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        signal_group(self.pid, _KILL)  # Before its pid can be reused.
        return True

    def has_code(self) -> bool:
        """Whether the exit code of the worker, which has ended, is known."""
        return True

    def reap(self) -> int:
        """Return the exit code of the worker, which has ended, and forget it."""
        _, status = os.waitpid(self.pid, 0)
        if self._end is not None:
            os.close(self._end)
        return os.waitstatus_to_exitcode(status)

    def dismiss(self) -> None:
        """Kill the worker, and forget it."""
        for each in (self.control, *self.output):
            os.close(each)
        signal_group(self.pid, _KILL)
        self.reap()

    def signal(self, number: int) -> None:
        """Send a signal to the worker and all its processes."""
        signal_tree(self.pid, number)


def start_worker(
    python: str = sys.executable,
    variables: Mapping[str, str] = os.environ,
    *,
    sends_result: bool = False,
) -> Worker:
    """Start a worker that waits for an action, in an interpreter that can import this package.

    `variables` is its environment. Starting one is cheap, so it may be done before it is known to
    be needed. It writes its result to a file unless it `sends_result`.
    """
    listen, control = _sockets() if sends_result else os.pipe()
    output, out, err = streams()
    descriptors = (listen, out, err)
    try:
        pid = spawn(python, variables, "main", *descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return Worker(pid, control, output, sends_result=sends_result)


def _sockets() -> tuple[int, int]:
    import socket

    listen, control = socket.socketpair()
    return listen.detach(), control.detach()


def spawn(
    python: str, variables: Mapping[str, str], module: str, control: int, out: int, err: int
) -> int:
    """Start the module of this package as a process that leads a group, and return its pid.

    The descriptors become its `CONTROL`, and its standard output and error.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    copies: Sequence[int] = ()
    while min(control, out, err) <= CONTROL:  # `dup2` must not overwrite one of the others.
        control, out, err = more = os.dup(control), os.dup(out), os.dup(err)
        copies = (*copies, *more)
    try:
        return os.posix_spawn(
            python,
            [python, "-u", "-P", "-c", f"from {__package__}.{module} import main; main()"],
            variables,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing, 0),
                (os.POSIX_SPAWN_DUP2, out, 1),
                (os.POSIX_SPAWN_DUP2, err, 2),
                (os.POSIX_SPAWN_DUP2, control, CONTROL),
            ],
            setpgroup=0,
        )
    finally:
        for descriptor in (nothing, *copies):
            os.close(descriptor)


def streams() -> tuple[dict[int, int], int, int]:
    """Return the descriptors to read output from, and a worker's standard output and error.

    A stream that is a terminal here is one there, so that colours and progress bars are drawn. If
    both are the same terminal, they share one there, too, which preserves their order.
    """
    if os.isatty(1) and os.isatty(2) and os.fstat(1).st_rdev == os.fstat(2).st_rdev:
        both_read, both = _terminal(1)
        return {both_read: 1}, both, os.dup(both)
    out_read, out = _stream(1)
    try:
        err_read, err = _stream(2)
    except OSError:
        os.close(out_read)
        os.close(out)
        raise
    return {out_read: 1, err_read: 2}, out, err


def _stream(stream: int) -> tuple[int, int]:
    return _terminal(stream) if os.isatty(stream) else os.pipe()


def _terminal(like: int) -> tuple[int, int]:
    """Return the ends of a pseudo-terminal with the size of `like`, which passes bytes unchanged.

    If none can be opened, a pipe is returned.
    """
    import termios

    try:
        read, write = os.openpty()
    except OSError:  # As in a container without /dev/pts.
        return os.pipe()
    modes = termios.tcgetattr(write)
    # No carriage returns are added: the log gets the written bytes, and the real terminal adds
    # its own.
    modes[1] &= ~termios.OPOST
    termios.tcsetattr(write, termios.TCSANOW, modes)
    termios.tcsetwinsize(write, termios.tcgetwinsize(like))
    return read, write


def follow_size(output: Mapping[int, int]) -> None:
    """Resize the terminals among a worker's streams to the current size of the real ones."""
    for descriptor, stream in output.items():
        if os.isatty(descriptor) and os.isatty(stream):
            import termios

            termios.tcsetwinsize(descriptor, termios.tcgetwinsize(stream))
