"""Starting a worker's process. It imports next to nothing, so that a command can do it before
anything else.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # As type checkers know it; `typing` itself is not worth its time here.
if TYPE_CHECKING:
    from collections.abc import Mapping


CONTROL = 3  # The file descriptor on which a worker listens.
_KILL = 9


class Worker:
    """A worker's process, which leads a process group: its pid, its output (stream by descriptor),
    and its pipe.

    `asked` is the monotonic time at which it was asked to end.
    """

    def __init__(self, pid: int, control: int, output: dict[int, int]) -> None:
        self.pid, self.control, self.output = pid, control, output
        self.asked: float | None = None


def start_worker(python: str = sys.executable, variables: Mapping[str, str] = os.environ) -> Worker:
    """Start a worker that waits for an action, in an interpreter that finds our package, with these
    environment variables.

    It costs little and may be started before it is known to be needed.
    """
    listen, control = os.pipe()
    output, out, err = _streams()
    nothing = os.open(os.devnull, os.O_RDONLY)
    descriptors = [listen, out, err, nothing]
    while min(descriptors[:3]) <= CONTROL:  # Placing one must not overwrite another.
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
    """What output is read from (stream by descriptor), and the two descriptors that a worker gets
    as its output and its errors.

    What is a terminal here is one there, so that colours and progress bars are drawn. Where both
    are the same terminal they are there too, which keeps their order.
    """
    if os.isatty(1) and os.isatty(2) and os.fstat(1).st_rdev == os.fstat(2).st_rdev:
        both_read, both = _terminal(1)
        return {both_read: 1}, both, os.dup(both)
    (out_read, out), (err_read, err) = (
        _terminal(stream) if os.isatty(stream) else os.pipe() for stream in (1, 2)
    )
    return {out_read: 1, err_read: 2}, out, err


def _terminal(like: int) -> tuple[int, int]:
    """A pseudo-terminal of the size of that terminal, which passes on bytes as they are; a pipe
    where none can be had.
    """
    import termios

    try:
        read, write = os.openpty()
    except OSError:  # As in a container without /dev/pts.
        return os.pipe()
    modes = termios.tcgetattr(write)
    # No carriage returns are added: the log has what was written, and the real terminal adds its
    # own.
    modes[1] &= ~termios.OPOST
    termios.tcsetattr(write, termios.TCSANOW, modes)
    termios.tcsetwinsize(write, termios.tcgetwinsize(like))
    return read, write


def follow_size(worker: Worker) -> None:
    """Make the worker's terminals as large as the real ones are now."""
    for descriptor, stream in worker.output.items():
        if os.isatty(descriptor) and os.isatty(stream):
            import termios

            termios.tcsetwinsize(descriptor, termios.tcgetwinsize(stream))


def dismiss(worker: Worker) -> None:
    """Send away a worker that was not needed."""
    os.close(worker.control)
    for descriptor in worker.output:
        os.close(descriptor)
    signal_group(worker.pid, _KILL)
    os.waitpid(worker.pid, 0)


def signal_group(group: int, number: int) -> None:
    """Send a signal to a process group; one that has ended is fine."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies.
        return
