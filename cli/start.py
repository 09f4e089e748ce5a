"""Where the `flyte` command begins: the worker is started first, while everything else is still to
be imported.
"""

from __future__ import annotations

import gc
import os
import sys

COMPLETE = "_FLYTE_COMPLETE"  # Set by a shell's completion script, which this command prints.
_VERBS = ("run", "rerun", "get", "abort")  # The commands in whose line "run" can stand.
_NO_WORKER = frozenset(("--help", "-h", "--local", "--version", "docker", "--engine=docker"))


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.getfilesystemencoding() == "ascii":
        _start_in_utf8()
    _open_streams()
    # A short life makes few cycles; looking for them would cost a tenth of a large scan.
    gc.disable()
    spare = None
    if COMPLETE in os.environ:
        from .completion import complete

        os._exit(_flushed(complete(COMPLETE)))
    verb = next((word for word in sys.argv[1:6] if word in _VERBS), "")
    if verb.endswith("run") and _NO_WORKER.isdisjoint(sys.argv) and sys.platform != "win32":
        from flyte_build.runner.worker.spawn import start_worker

        spare = start_worker()
    try:
        from .main import run_command

        code = run_command(sys.argv[1:], spare)
    except KeyboardInterrupt:
        code = 130
    os._exit(_flushed(code))  # Taking the interpreter apart would take longer than many a command.


def _start_in_utf8() -> None:
    """Start this command again in UTF-8 mode (PEP 540), which somebody has switched off.

    In the locale POSIX, names of files that are not ASCII would be unreadable in all messages.
    """
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _open_streams() -> None:
    """Open standard streams that are closed (`>&-`) on /dev/null, as git does: else the next file
    that is opened takes their place.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            # It stays open to the end.
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _flushed(code: int) -> int:
    """The exit code, once all that was printed is out."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return code or 1
    return code
