"""Calls whose environments are prepared only during the run."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.support.command import Shell

TASKS = """
import asyncio
import flyte

image = flyte.Image.from_debian_base().with_pip_packages("no-such-package", index_url="http://127.0.0.1:{port}/")
slow = flyte.TaskEnvironment(name="slow", image=image)
env = flyte.TaskEnvironment(name="late")

@slow.task
async def waits() -> int:
    return 1

@env.task
async def quick(x: int) -> int:
    print("quick", x, flush=True)
    return x

@env.task
async def middle() -> int:
    return await waits()

@env.task
async def main() -> int:
    late = asyncio.create_task(middle())
    await asyncio.sleep(0.2)
    for x in range(3):
        await quick(x)
    return await late
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_others_go_on_and_an_interruption_ends_all(flyte: Shell, number: int) -> None:
    """While an index does not answer, other calls run; Ctrl-C ends the preparation, too."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        (flyte.project / "late.py").write_text(TASKS.format(port=index.getsockname()[1]))
        command = flyte.start("run", "late.py", "main")
        index.settimeout(60)
        connection, _ = index.accept()
        assert command.stdout is not None
        while "quick 2" not in (line := command.stdout.readline()):
            assert line, command.communicate()
        command.send_signal(number)
        _, errors = command.communicate(timeout=30)
        assert command.returncode == (130 if number == signal.SIGINT else 5), errors
        assert "is prepared during the run" in errors and "Traceback" not in errors
        connection.settimeout(10)
        while connection.recv(1 << 16):
            pass  # The process that asked the index has ended, too.
        connection.close()
