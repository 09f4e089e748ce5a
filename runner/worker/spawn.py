"""Start of a worker's process.

This module imports next to nothing, so that a command can start a worker first of all.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # Type checkers know this name; importing `typing` takes too long here.
if TYPE_CHECKING:
    from collections.abc import Mapping


CONTROL = 3  # The file descriptor on which a worker listens.
_KILL = 9


class Worker:
    """A worker's process, which leads a process group.

    `control` is its pipe, `output` maps descriptors to read from to streams (1 or 2), and `asked`
    is the monotonic time at which it was asked to end.
    """

    def __init__(self, pid: int, control: int, output: dict[int, int]) -> None:
        self.pid, self.control, self.output = pid, control, output
        self.asked: float | None = None


def start_worker(python: str = sys.executable, variables: Mapping[str, str] = os.environ) -> Worker:
    """Start a worker that waits for an action, in an interpreter that can import this package.

    `variables` is its environment. Starting one is cheap, so it may be done before it is known to
    be needed.
    """
    listen, control = os.pipe()
    output, out, err = _streams()
    nothing = os.open(os.devnull, os.O_RDONLY)
    descriptors = [listen, out, err, nothing]
    while min(descriptors[:3]) <= CONTROL:  # `dup2` must not overwrite one of the others.
        descriptors = [*map(os.dup, descriptors[:3]), *descriptors[3:], *descriptors[:3]]
    pid = os.posix_spawn(
        python,
        [python, "-u", "-P", "-c", "from flyte_build.runner.worker.main import main; main()"],
        variables,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, nothing, 0),
            (os.POSIX_SPAWN_DUP2, descriptors[1], 1),
            (os.POSIX_SPAWN_DUP2, descriptors[2], 2),
            (os.POSIX_SPAWN_DUP2, descriptors[0], CONTROL),
        ],
        setpgroup=0,
    )
    for descriptor in descriptors:
        os.close(descriptor)
    return Worker(pid, control, output)


def _streams() -> tuple[dict[int, int], int, int]:
    """Return the descriptors to read output from, and a worker's standard output and error.

    A stream that is a terminal here is one there, so that colours and progress bars are drawn. If
    both are the same terminal, they share one there, too, which preserves their order.
    """
    if os.isatty(1) and os.isatty(2) and os.fstat(1).st_rdev == os.fstat(2).st_rdev:
        both_read, both = _terminal(1)
        return {both_read: 1}, both, os.dup(both)
    (out_read, out), (err_read, err) = (
        _terminal(stream) if os.isatty(stream) else os.pipe() for stream in (1, 2)
    )
    return {out_read: 1, err_read: 2}, out, err


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


def follow_size(worker: Worker) -> None:
    """Resize the worker's terminals to the current size of the real ones."""
    for descriptor, stream in worker.output.items():
        if os.isatty(descriptor) and os.isatty(stream):
            import termios

            termios.tcsetwinsize(descriptor, termios.tcgetwinsize(stream))


def dismiss(worker: Worker) -> None:
    """End a worker that was not needed."""
    os.close(worker.control)
    for descriptor in worker.output:
        os.close(descriptor)
    signal_group(worker.pid, _KILL)
    os.waitpid(worker.pid, 0)


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group, unless it has ended."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS raises EPERM for a group of zombies.
        return
