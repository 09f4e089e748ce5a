"""`flyte run python-script`: plain scripts as runs."""

from __future__ import annotations

import json
import signal

import pytest

from tests.support.command import Shell, wait_for_no_sleepers

SCRIPT = """
import os, subprocess, sys, time
print(__name__, sys.argv[1:], os.getcwd(), flush=True)
if sys.argv[1:] == ["fail"]:
    1 / 0
if sys.argv[1:] == ["wait"]:
    subprocess.Popen(["sleep", "987654"])
    print("started")
    time.sleep(600)
if sys.argv[1:] == ["kill"]:
    os.kill(os.getpid(), 9)
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"""


@pytest.fixture(autouse=True)
def script(flyte: Shell) -> None:
    """Write the script into the project's directory."""
    (flyte.project / "script.py").write_text(SCRIPT)


def test_a_script_is_a_run(flyte: Shell) -> None:
    """A script runs as `python SCRIPT` does, has a log, and is in the history with its inputs."""
    done = flyte(
        "run",
        "--name",
        "one",
        "--label",
        "a=b",
        "python-script",
        "script.py",
        "--extra-args",
        "0 'x y'",
    )
    assert (
        done.stdout
        == f"__main__ ['0', 'x y'] {flyte.project}\n"
        == flyte("get", "logs", "one").stdout
    )
    assert flyte.json("get", "io", "one")["inputs"]["arguments"] == ["0", "x y"]
    (listed,) = flyte.json("get", "run", "--with-label", "a=b")
    assert listed["phase"] == "succeeded" and listed["task"] == "python-script.script"
    assert flyte("rerun", "one").stdout == done.stdout
    assert "working tree" in flyte("get", "code", "one", exit_code=4).stderr
    assert flyte.json("run", "python-script", "script.py")["phase"] == "succeeded"


@pytest.mark.parametrize(
    ("args", "exit_code", "kind", "text"),
    [
        (["--extra-args", "7"], 1, "RuntimeUserError", "exit code 7"),
        (["--extra-args", "fail"], 1, "RuntimeUserError", "exit code 1"),
        (["--extra-args", "kill"], 1, "OOMError", "SIGKILL"),
        (["--extra-args", "wait", "--timeout", "1s"], 6, "MaxRuntimeExceededError", "1 s"),
    ],
)
def test_a_script_that_does_not_succeed_says_why(
    flyte: Shell, args: list[str], exit_code: int, kind: str, text: str
) -> None:
    """A script that fails shows Python's traceback alone, and its processes are ended."""
    done = flyte("-of", "json", "run", "python-script", "script.py", *args, exit_code=exit_code)
    error = json.loads(done.stdout)["error"]
    assert error["type"] == kind and text in error["message"]
    assert (
        done.stderr.count("Traceback") == ("fail" in args)
        and flyte.last_run()["phase"] != "running"
    )
    wait_for_no_sleepers()


def test_a_script_ends_with_its_command(flyte: Shell) -> None:
    """A signal or an abort ends a script with its command."""
    for how in ("signal", "abort"):
        command = flyte.start(
            "run", "--name", how, "python-script", "script.py", "--extra-args", "wait"
        )
        assert command.stdout and any(line == "started\n" for line in command.stdout)
        if how == "signal":
            command.send_signal(signal.SIGTERM)
        else:
            flyte("abort", "run", how)
        command.communicate(timeout=30)
        assert command.returncode == 5 and flyte.json("get", "run", how)["phase"] == "aborted"
        wait_for_no_sleepers()


def test_what_is_not_acted_on_is_kept_and_said(flyte: Shell) -> None:
    """Ignored options are noted once, and again in a rerun; wrong values are refused."""
    options = [
        "--cpu",
        "2",
        "--memory",
        "1Gi",
        "--gpu",
        "A100:1",
        "--packages",
        "numpy,scipy",
        "--image",
        "example/image:1",
    ]
    for command in (
        ["run", "--queue", "q", "--name", "one", "python-script", "script.py", *options],
        ["rerun", "one"],
    ):
        errors = flyte(*command).stderr
        assert errors.count("engine ignores: cpu, gpu, image, memory, packages, queue.") == 1
    for wrong in (["--cpu", "many"], ["--timeout", "soon"], ["--extra-args", "'"]):
        assert flyte("run", "python-script", "script.py", *wrong, exit_code=2).stdout == ""
    assert "nope.py does not exist" in flyte("run", "python-script", "nope.py", exit_code=2).stderr
    assert "has no inputs" in flyte("rerun", "one", "--path", "x", exit_code=2).stderr
