"""The entry point of the `flyte` command.

It starts the worker first, so that the worker starts while everything else is imported.
"""

from __future__ import annotations

import gc
import os
import sys

COMPLETE = "_FLYTE_COMPLETE"  # Set by the completion script of a shell.
_VERBS = ("run", "rerun", "get", "abort")  # Commands whose arguments may contain "run".
_NO_WORKER = frozenset(("--help", "-h", "--local", "--version", "docker", "--engine=docker"))


def main() -> None:
    """Run the command line and end the process with its exit code."""
    if sys.getfilesystemencoding() == "ascii":
        _start_in_utf8()
    _open_streams()
    # A short process leaves few cycles; collecting them would take a tenth of a large scan.
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
    os._exit(_flushed(code))  # Finalizing the interpreter would take longer than many commands.


def _start_in_utf8() -> None:
    """Restart this command in UTF-8 mode (PEP 540), which was turned off.

    In the POSIX locale, file names that are not ASCII would be unreadable in all messages.
    """
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _open_streams() -> None:
    """Open /dev/null for standard streams that are closed (`>&-`), as git does.

    Otherwise the next file that is opened would get their descriptor.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            # It stays open until the process ends.
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _flushed(code: int) -> int:
    """Flush the standard streams, and return the exit code: 1 instead of 0 if that fails."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return code or 1
    return code
