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


SIBLINGS = """
@env.task
async def siblings() -> str:
    late = asyncio.create_task(waits())
    await asyncio.sleep(0.2)
    await asyncio.gather(*(quick(x) for x in range(3)))
    try:
        await asyncio.wait_for(late, 0.1)
    except TimeoutError:
        return f"gave up, {await quick(3)}"
"""


def test_a_call_that_waits_for_its_environment_keeps_no_sibling_waiting(flyte: Shell) -> None:
    """A parent goes on calling while a child has no place, and may give that child up."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        tasks = TASKS.format(port=index.getsockname()[1])
        (flyte.project / "late.py").write_text(tasks + SIBLINGS)
        done = flyte("run", "late.py", "siblings")
    assert "gave up, 3" in done.stdout, done.stderr
    assert "] quick 3" in done.stdout


REFUSED = """
@env.task
async def refused() -> str:
    calls = [waits(), waits(), waits(), quick(4)]
    return " ".join(map(str, await asyncio.gather(*calls, return_exceptions=True)))
"""


def test_a_late_refusal_reaches_its_caller(flyte: Shell) -> None:
    """An environment that cannot be prepared is an error of its calls alone, and told once."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    (flyte.project / "late.py").write_text(TASKS.format(port=port) + REFUSED)
    done = flyte("run", "late.py", "refused")
    assert done.stdout.count("no-such-package") >= 3 and done.stdout.endswith(" 4\n"), done
    assert done.stderr.count("is prepared during the run") == 1
