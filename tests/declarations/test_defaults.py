"""Defaults are values of the spec: help shows the values with which the task is called.

It does not matter where the task runs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.support.command import Shell

FLOW = """
import dataclasses, os, pathlib, time
import flyte
HERE = pathlib.Path(__file__).parent

@dataclasses.dataclass
class Size:
    width: int
    height: int = 2

class Odd:
    def __eq__(self, other): return isinstance(other, Odd)

env = flyte.TaskEnvironment("defaults")

@env.task
def job(
    listed: list[str] = sorted(path.name for path in HERE.glob("plugins/*")),
    there: bool = (HERE / "flag").exists(),
    variable: str = os.environ.get("DEFAULT_OF_MINE", "none"),
    size: Size = Size(3),
    pair: tuple[int, ...] = (1, 2),
) -> str:
    return repr((listed, there, variable, size, pair))

@env.task
def bare(odd: Odd = Odd(), items: list[int] = (1, 2)) -> str:
    return f"{type(odd).__name__} {items!r}"
"""
EXPECTED = "(['a.txt', 'b.txt'], True, 'set', Size(width=3, height=2), (1, 2))"
WIRE = {
    "listed": ["a.txt", "b.txt"],
    "there": True,
    "variable": "set",
    "size": {"width": 3, "height": 2},
    "pair": [1, 2],
}


@pytest.fixture
def computed(flyte: Shell) -> Shell:
    """A file whose defaults are computed from files and variables that the worker does not have."""
    (flyte.project / "plugins").mkdir()
    for name in ("plugins/a.txt", "plugins/b.txt", "flag", "flyte.toml"):
        (flyte.project / name).write_text("")
    (flyte.project / "flow.py").write_text(FLOW)
    flyte.variables["DEFAULT_OF_MINE"] = "set"
    return flyte


@pytest.mark.parametrize("options", [(), ("--local",), ("--copy-style", "all"), ("--no-cache",)])
def test_help_and_run_and_history_agree(computed: Shell, options: tuple[str, ...]) -> None:
    """Help, runs and the history agree on defaults, even if their files are not in the bundle."""
    text = computed("run", "flow.py", "job", "--help").stdout
    assert '["a.txt", "b.txt"]' in text and "default: set" in text
    run = computed.json("run", *options, "flow.py", "job")
    assert run["outputs"] == {"o0": EXPECTED}
    assert computed.json("get", "io", run["run"])["inputs"] == WIRE
    again = computed.json("rerun", run["run"], "--variable", "other")
    assert again["outputs"] == {"o0": EXPECTED.replace("'set'", "'other'")}


def test_a_deployment_keeps_them(computed: Shell) -> None:
    """A deployment keeps the defaults of its creation, on any machine and in Python."""
    computed("deploy", "--version", "v1", "flow.py", "env")
    (computed.project / "flag").unlink()
    run = computed.json("run", "deployed-task", "defaults.job:v1", env={"DEFAULT_OF_MINE": "there"})
    assert (
        run["outputs"] == {"o0": EXPECTED}
        and computed.json("get", "io", run["run"])["inputs"] == WIRE
    )


def test_a_change_of_what_a_default_was_made_of_is_seen(computed: Shell) -> None:
    """A change of a default's sources is seen by the next run."""
    computed("run", "flow.py", "job")
    (computed.project / "plugins/c.txt").write_text("")
    run = computed.json("run", "flow.py", "job", env={"DEFAULT_OF_MINE": "new"})
    assert run["outputs"] == {
        "o0": EXPECTED.replace("'b.txt'", "'b.txt', 'c.txt'").replace("'set'", "'new'")
    }


def test_a_default_that_cannot_be_written_down_is_made_where_the_task_runs(computed: Shell) -> None:
    """A default that cannot be recorded is created where the task runs, which is noted.

    An equal value of another type does not stand in for it.
    """
    done = computed("run", "flow.py", "bare")
    assert (
        done.stdout == "Odd (1, 2)\n"
        and "Cannot record the defaults of odd, items of defaults.bare" in done.stderr
    )
    given = computed("run", "flow.py", "bare", "--items", "[3]")
    assert given.stdout == "Odd [3]\n" and "Cannot record the default of odd of" in given.stderr
    assert computed.json("get", "io", computed.last_run()["name"])["inputs"] == {"items": [3]}


def test_none_is_a_default_of_any_type(computed: Shell) -> None:
    """None is a valid default of any type, as in Python, in runs of all kinds."""
    task = (
        "@env.task\ndef none(a: int = None, b: list[int] = None, c: Size = None) -> str:\n   "
        " return repr((a, b, c))\n"
    )
    (computed.project / "none.py").write_text(FLOW + "\n" + task)
    for options in ((), ("--local",)):
        run = computed.json("run", *options, "none.py", "none")
        assert run["outputs"] == {"o0": "(None, None, None)"}
    assert computed.json("rerun", run["run"], "--b", "[1]")["outputs"] == {
        "o0": "(None, [1], None)"
    }
    computed("deploy", "--version", "v1", "none.py", "env")
    assert computed.json("run", "deployed-task", "defaults.none:v1")["outputs"] == {
        "o0": "(None, None, None)"
    }


@pytest.mark.slow
def test_a_run_that_is_edited_meanwhile_is_of_one_state(flyte: Shell) -> None:
    """Help, modules and data of a run are of one moment, or the run reports that they changed."""
    flow = (
        "import flyte\nimport one, two\nenv = flyte.TaskEnvironment('mixed',"
        " include=['data.txt'])\n\n\n@env.task\n"
    )
    flow += (
        "def job(spec: int = one.N) -> list[int]:\n    return [spec, one.N, two.N,"
        " int(open('data.txt').read())]\n"
    )
    (flyte.project / "flow.py").write_text(flow)
    (flyte.project / "flyte.toml").write_text("")
    ended = Event()

    def write(number: int) -> None:
        for name, text in (
            ("one.py", f"N = {number}\n"),
            ("two.py", f"N = {number}\n"),
            ("data.txt", f"{number}"),
        ):
            (flyte.project / f".{name}").write_text(text)
            os.rename(flyte.project / f".{name}", flyte.project / name)

    def edit() -> None:
        number = 1
        while not ended.wait(0.05):
            write(number := number + 1)

    write(1)
    editor = Thread(target=edit)
    editor.start()
    try:
        seen = []
        for style in ("loaded_modules", "all") * 6:
            done = flyte(
                "-of", "json", "run", "--copy-style", style, "flow.py", "job", exit_code=None
            )
            result = json.loads(done.stdout)
            if done.returncode == 0:
                seen.append((result["outputs"]["o0"], done.stderr))
            else:
                assert done.returncode == 3 and "changed while" in result["error"]["message"], (
                    done.stdout
                )
    finally:
        ended.set()
        editor.join()
    assert all(len(set(numbers)) == 1 or "changed during" in notes for numbers, notes in seen), seen
    assert Path(flyte.project / "flow.py").exists()
