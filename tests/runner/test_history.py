"""`flyte get` and `flyte rerun`: the history of runs, and searching it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flyte_build.runner.history.rows import Filter
from tests.support.command import TASKS, Shell

OLD_TABLE = """
CREATE TABLE runs(
  name TEXT PRIMARY KEY, task TEXT NOT NULL, file TEXT NOT NULL, project TEXT NOT NULL, domain TEXT NOT NULL,
  version TEXT NOT NULL, phase TEXT NOT NULL, why TEXT NOT NULL, attempts INTEGER NOT NULL, started REAL NOT NULL, ended REAL);
CREATE INDEX runs_started ON runs(started);
CREATE INDEX runs_open ON runs(phase) WHERE ended IS NULL;
INSERT INTO runs VALUES('old', 't.hello', 'tasks.py', 'default', 'development', 'v0', 'succeeded', '', 1, 1.0, 2.0);
PRAGMA user_version=1;
"""


SIMPLE = """
import flyte
env = flyte.TaskEnvironment(name="t")
@env.task
def gives(name: str) -> str: return "{} " + name
"""


def database(flyte: Shell) -> sqlite3.Connection:
    return sqlite3.connect(flyte.home / "data/v1/history.sqlite", isolation_level=None)


def names(flyte: Shell, *filters: str) -> list[str]:
    return [run["name"] for run in flyte.json("get", "run", *filters)]


def test_a_list_is_narrowed_down(flyte: Shell) -> None:
    """Runs are filtered by phase, task, version, time, user and labels, all of which must match.

    An empty list is reported.
    """
    assert "no runs yet" in flyte("get", "run").stderr and flyte.json("get", "run") == []
    flyte(
        "run", "--name", "one", "--label", "team=blue", "--label", "kind=test", "tasks.py", "hello"
    )
    flyte(
        "run",
        "--name",
        "two",
        "--label",
        "team=red",
        "--version",
        "v2",
        "tasks.py",
        "fails",
        exit_code=1,
    )
    flyte("run", "--name", "three", "--label", "team=blue", "tasks.py", "slow", exit_code=6)
    assert names(flyte) == ["three", "two", "one"] and names(flyte, "--limit", "2") == [
        "three",
        "two",
    ]
    assert names(flyte, "--in-phase", "failed") == ["two"]
    assert names(flyte, "--in-phase", "failed", "--in-phase", "timed_out") == ["three", "two"]
    assert names(flyte, "--task-name", "t.hello") == ["one"] and names(
        flyte, "--task-version", "v2"
    ) == ["two"]
    assert names(flyte, "--with-label", "team=blue") == ["three", "one"]
    assert names(flyte, "--with-label", "team=blue", "--with-label", "kind=test") == ["one"]
    assert names(flyte, "--with-label", "team=blue", "--in-phase", "failed") == []
    assert (
        names(flyte, "--created-after", "now - 1h") == ["three", "two", "one"]
        and names(flyte, "--created-before", "now - 1h") == []
    )
    began = flyte.json("get", "run", "two")["started"]
    assert names(flyte, "--created-before", began) == ["one"]
    assert len(names(flyte, "--only-mine")) == 3
    with closing(database(flyte)) as connection:
        connection.execute("UPDATE runs SET user = user + 1 WHERE name = 'two'")
    assert names(flyte, "--only-mine") == ["three", "one"]
    empty = flyte("get", "run", "--task-name", "t.other")
    assert empty.stdout == "" and "No runs match" in empty.stderr
    assert flyte("get", "run", "--limit", "1").stdout.split("\t")[:3] == [
        "three",
        "t.slow",
        "timed_out",
    ]


def test_a_run_is_shown_with_its_actions(flyte: Shell) -> None:
    """A run is shown in the form that scripts rely on, before and after its end.

    An unknown action is an error.
    """
    command = flyte.start("run", "--name", "one", "--label", "team=blue", "tasks.py", "for_ever")
    assert command.stdout and command.stdout.readline() == "started\n"
    run = flyte.json("get", "run", "one")
    assert run["phase"] == "running" and run["ended"] is None and run["labels"] == {"team": "blue"}
    assert run["actions"][0]["parent"] is None and run["actions"][0]["ended"] is None
    command.send_signal(signal.SIGTERM)
    command.communicate(timeout=30)
    run = flyte.json("get", "run", "one")
    assert {"name", "task", "phase", "started", "ended", "url", "actions"} <= run.keys() and run[
        "error"
    ]["type"] == "ActionAbortedError"
    (action,) = run["actions"]
    assert action.keys() == {
        "name",
        "task",
        "parent",
        "group",
        "engine",
        "phase",
        "why",
        "attempts",
        "cached",
        "recovered_from",
        "queued",
        "started",
        "ended",
    }
    assert (
        flyte.json("get", "action", "one") == [action]
        and flyte.json("get", "action", "one", action["name"]) == action
    )
    assert (
        "t.for_ever" in flyte("get", "action", "one").stdout
        and "aborted" in flyte("get", "action", "one", "a0").stdout
    )
    for verb in ("action", "logs", "io", "code"):
        assert "No action named 'a7'" in flyte("get", verb, "one", "a7", exit_code=4).stderr
        assert "No run named 'on'" in flyte("get", verb, "on", exit_code=4).stderr


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(),
        Filter(phases=("failed",)),
        Filter(phases=("failed", "aborted")),
        Filter(task="t.hello"),
        Filter(version="v1"),
        Filter(user=0),
        Filter(after=1.0, before=2.0),
        Filter(labels={"team": "blue"}),
        Filter(phases=("failed",), task="t.hello", labels={"team": "blue", "kind": "test"}),
    ],
    ids=str,
)
def test_a_list_is_found_by_an_index(flyte: Shell, wanted: Filter) -> None:
    """No query reads a whole table, not even the one for runs that have not ended."""
    flyte("get", "run")
    with closing(database(flyte)) as connection:
        for statement, values in (
            wanted.query(100),
            ("SELECT name FROM runs WHERE ended IS NULL", []),
        ):
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
            assert (
                all("INDEX" in step for step in plan if step.startswith(("SCAN", "SEARCH")))
                and plan
            )


def test_a_database_of_an_older_version_is_brought_up_to_date(flyte: Shell) -> None:
    """A database of an older version keeps its runs; a newer one is refused and unchanged.

    Concurrent commands can upgrade it.
    """
    (flyte.home / "data/v1/runs").mkdir(parents=True)
    with closing(database(flyte)) as connection:
        connection.executescript(OLD_TABLE)
    commands = [flyte.start("get", "run") for _ in range(3)]
    for command in commands:
        output, errors = command.communicate(timeout=30)
        assert command.returncode == 0 and output.startswith("old\t"), errors
    flyte("run", "--label", "a=b", "tasks.py", "hello")
    assert names(flyte)[1] == "old" and len(names(flyte, "--with-label", "a=b")) == 1
    with closing(database(flyte)) as connection:
        connection.execute("PRAGMA user_version=99")
    assert "newer version" in flyte("get", "run", exit_code=3).stderr
    with closing(database(flyte)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


def test_a_run_that_lost_its_command_ends_as_its_result_says(flyte: Shell) -> None:
    """A run whose command was killed has the phase of its result, or has failed without one."""
    for name in ("done", "lost"):
        flyte("run", "--name", name, "tasks.py", "hello")
    (flyte.home / "data/v1/runs/lost/result.json").unlink()
    with closing(database(flyte)) as connection:
        connection.execute("UPDATE runs SET phase = 'running', ended = NULL")
    listed = flyte("get", "run")
    assert "The command of the run lost is gone" in listed.stderr and "done" not in listed.stderr
    assert flyte.json("get", "run", "done")["phase"] == "succeeded"
    lost = flyte.json("get", "run", "lost")
    assert lost["phase"] == "failed" and lost["error"]["kind"] == "lost"


def test_inputs_and_outputs_are_kept(flyte: Shell) -> None:
    """Inputs and outputs are shown together or alone."""
    flyte("run", "--name", "one", "tasks.py", "hello", "--name", "Ada")
    assert flyte.json("get", "io", "one") == {
        "inputs": {"name": "Ada"},
        "outputs": {"o0": "Hello, Ada!"},
    }
    assert flyte.json("get", "io", "-i", "one", "a0") == {"inputs": {"name": "Ada"}}
    assert flyte.json("get", "io", "-o", "one") == {"outputs": {"o0": "Hello, Ada!"}}
    assert flyte("get", "io", "one").stdout == "input name: Ada\noutput o0: Hello, Ada!\n"
    flyte("run", "--name", "two", "tasks.py", "fails", exit_code=1)
    assert flyte.json("get", "io", "two") == {"inputs": {}, "outputs": {}}
    assert "no inputs and no outputs" in flyte("get", "io", "two").stderr


def remove(folder: Path) -> None:
    for here, _, _ in os.walk(folder):
        os.chmod(here, 0o700)
    shutil.rmtree(folder)


def test_a_runs_code_is_written_out(flyte: Shell) -> None:
    """`get code` writes the run's code to an empty directory, from the extraction or bundle.

    If the cache has lost it, that is an error.
    """
    (flyte.project / "run.sh").write_text("true\n")
    (flyte.project / "run.sh").chmod(0o755)
    (flyte.project / "sub").mkdir()
    (flyte.project / "sub/link").symlink_to("../tasks.py")
    flyte("run", "--name", "one", "--copy-style", "all", "tasks.py", "hello")
    (flyte.project / "tasks.py").write_text("# other\n")
    for target in ("first", "second"):
        assert "3 files" in flyte("get", "code", "one", "-o", target).stdout
        code = flyte.project / target
        assert (code / "tasks.py").read_text() == TASKS and os.readlink(
            code / "sub/link"
        ) == "../tasks.py"
        assert (
            os.access(code / "run.sh", os.W_OK | os.X_OK)
            and not os.stat(code / "tasks.py").st_mode & 0o111
        )
        remove(flyte.home / "cache/v1/extractions")
        (flyte.home / "cache/v1/extractions").mkdir()
    (code / "mine").write_text("mine")
    assert "not empty" in flyte("get", "code", "one", "-o", "second", exit_code=2).stderr
    flyte("cache", "gc", "--keep", "0s")
    assert (
        "no longer in the cache" in flyte("get", "code", "one", "-o", "third", exit_code=4).stderr
    )
    assert (code / "mine").read_text() == "mine" and not (flyte.project / "third").exists()


def test_a_run_is_done_again(flyte: Shell) -> None:
    """A rerun uses the current file, the original copy style, and the original or given inputs.

    Values of `-e` are not kept.
    """
    (flyte.project / "data.txt").write_text("data")
    flyte("run", "--name", "one", "tasks.py", "hello", "--name", "Ada")
    assert flyte("rerun", "--name", "two", "--label", "a=b", "one").stdout == "Hello, Ada!\n"
    assert names(flyte, "--with-label", "a=b") == ["two"]
    assert flyte.json("rerun", "two", "--name", "Eve")["outputs"] == {"o0": "Hello, Eve!"}
    assert "[default: Ada]" in flyte("rerun", "one", "--help").stdout
    flyte("run", "--name", "all", "--copy-style", "all", "tasks.py", "reads", "--path", "data.txt")
    assert flyte("rerun", "all").stdout == "data\n"
    flyte(
        "run",
        "--name",
        "env",
        "-e",
        "MINE=secret",
        "-e",
        "BOTH=x",
        "tasks.py",
        "variables",
        "--names",
        "MINE",
    )
    again = flyte("rerun", "env")
    assert again.stdout == '["-"]\n' and "MINE with `-e`" in again.stderr
    assert flyte("rerun", "-e", "MINE=y", "env").stdout == '["y"]\n'
    flyte("run", "--local", "--name", "here", "tasks.py", "hello")
    flyte("rerun", "here")
    assert "working tree" in flyte("get", "code", flyte.last_run()["name"], exit_code=4).stderr
    (flyte.project / "tasks.py").write_text(
        TASKS.replace("name: str", "who: str").replace("{name}", "{who}")
    )
    assert "'name' of the run one no longer exists" in flyte("rerun", "one", exit_code=2).stderr
    assert "No run named 'nope'" in flyte("rerun", "nope", exit_code=4).stderr
    assert "has ended" not in flyte("rerun", "one", "--who", "x", exit_code=2).stderr


def test_a_log_is_shown_in_parts(flyte: Shell) -> None:
    """The last lines, one attempt, or timestamps of a log can be shown; a local run has no log."""
    run = flyte.json("run", "tasks.py", "flaky", "--path", str(flyte.home / "count"))["run"]
    whole = flyte("get", "logs", run).stdout
    attempts = [flyte("get", "logs", "--attempt", str(number), run).stdout for number in (1, 2, 3)]
    assert "".join(attempts) == whole and [
        text.count("RuntimeError: again") for text in attempts
    ] == [1, 1, 0]
    assert flyte("get", "logs", "-l", "1", "--attempt", "1", run).stdout == "RuntimeError: again\n"
    assert (
        flyte("get", "logs", "-l", "0", run).stdout == ""
        and flyte("get", "logs", "-l", "999", run, "a0").stdout == whole
    )
    assert "no attempt 4" in flyte("get", "logs", "--attempt", "4", run, exit_code=4).stderr
    stamped = flyte("get", "logs", "--show-ts", run).stdout.splitlines()
    assert [line.split(" ", 1)[1] for line in stamped] == whole.splitlines()
    assert [line.split(" ")[0] for line in stamped] == sorted(
        line.split(" ")[0] for line in stamped
    ) and stamped[0][10] == "T"
    flyte("run", "--local", "--name", "here", "tasks.py", "hello")
    assert "has no log" in flyte("get", "logs", "here", exit_code=4).stderr


def test_the_end_of_a_long_log_is_found(flyte: Shell) -> None:
    """The last lines of a log are found over several blocks, and without a final newline."""
    flyte("run", "--name", "one", "tasks.py", "prints", "--size", "1000000")
    whole = flyte("get", "logs", "one").stdout
    assert flyte("get", "logs", "-l", "5000", "one").stdout == whole[-500_000:]
    flyte("run", "--name", "two", "tasks.py", "binary")
    assert flyte("get", "logs", "-l", "1", "two").stdout.endswith("\x1b[31mred\x1b[0m")


def test_a_log_is_followed_until_the_run_ends(flyte: Shell) -> None:
    """Following a log ends with the run, even if its command is killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        command = flyte.start("run", "tasks.py", "for_ever")
        assert command.stdout and command.stdout.readline() == "started\n"
        follower = flyte.start("get", "logs", "-f", flyte.last_run()["name"])
        assert (
            follower.stdout
            and follower.stdout.readline() == "started\n"
            and follower.poll() is None
        )
        command.send_signal(number)
        follower.communicate(timeout=30)
        assert follower.returncode == 0
        command.communicate(timeout=30)


def test_a_rerun_as_then_runs_the_stored_code(flyte: Shell) -> None:
    """`rerun --as-then` runs the stored code, even if the file was edited or renamed.

    A plain `rerun` notes that it runs the current code.
    """
    file = flyte.project / "tasks.py"
    file.write_text(SIMPLE.format("first"))
    run = flyte.json("run", "tasks.py", "gives", "--name", "a")["run"]
    again = flyte("rerun", run)
    assert again.stdout == "first a\n" and "note:" not in again.stderr
    file.write_text(SIMPLE.format("second"))
    changed = flyte("rerun", run)
    assert changed.stdout == "second a\n"
    assert f"The code has changed since {run}: this runs the current code." in changed.stderr
    file.rename(flyte.project / "renamed.py")
    assert "does not exist" in flyte("rerun", run, exit_code=2).stderr
    stored = flyte.json("rerun", "--as-then", "--name", "stored", run, "--name", "b")
    assert stored["outputs"] == {"o0": "first b"}
    assert flyte("rerun", "--as-then", "stored").stdout == "first b\n"
    shown, original = (flyte.json("get", "run", name) for name in ("stored", run))
    assert (shown["version"], shown["file"]) == (original["version"], "tasks.py")


def test_a_rerun_as_then_needs_the_code(flyte: Shell) -> None:
    (flyte.project / "tasks.py").write_text(SIMPLE.format("first"))
    local = flyte.json("run", "--local", "tasks.py", "gives", "--name", "a")["run"]
    error = flyte("rerun", "--as-then", local, exit_code=4).stderr
    assert "has no stored code" in error and "--local" in error
    run = flyte.json("run", "tasks.py", "gives", "--name", "a")["run"]
    flyte("delete", "local-cache")
    assert "is no longer in the cache" in flyte("rerun", "--as-then", run, exit_code=4).stderr
