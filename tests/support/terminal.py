"""Commands on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time

from .command import Shell


class Terminal:
    """A command on a pseudo-terminal; output streams may be redirected."""

    def __init__(self, flyte: Shell, *command: str, columns: int = 123, **redirected: int) -> None:
        self._read, write = pty.openpty()
        termios.tcsetwinsize(write, (24, columns))
        streams: dict[str, int] = {"stdin": write, "stdout": write, "stderr": write, **redirected}
        environment = {**flyte.environment, "TERM": "xterm"}
        self.process = subprocess.Popen(
            command, cwd=flyte.project, env=environment, start_new_session=True, **streams
        )  # type: ignore[call-overload]
        os.close(write)
        self.seen = b""

    def expect(self, text: str) -> str:
        """Read until the text appears, and return everything before it."""
        deadline = time.monotonic() + 60
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline and self._more(), self.seen
        before, _, self.seen = self.seen.partition(text.encode())
        return before.decode()

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._read, line.encode() + b"\n")

    def resize(self, columns: int) -> None:
        """Give the terminal this width."""
        termios.tcsetwinsize(self._read, (24, columns))

    def end(self, exit_code: int = 0) -> str:
        """Wait for the command's end, and return the unread output."""
        while self._more():
            pass
        assert self.process.wait(60) == exit_code, self.seen
        os.close(self._read)
        return self.seen.decode()

    def _more(self) -> bool:
        if not select.select([self._read], [], [], 60)[0]:
            return False
        try:
            data = os.read(self._read, 1 << 16)
        except OSError:  # Nobody has it open any more.
            return False
        self.seen += data
        return bool(data)
