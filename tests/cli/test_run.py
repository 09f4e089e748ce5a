"""`flyte run`: what is prepared, when and why, and how commands share the store."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.command import TASKS, Shell, states
from tests.support.files import write_files


def test_the_second_run_prepares_nothing(flyte: Shell) -> None:
    """A second run only looks everything up: no file is read, and no blob is written."""
    first = flyte.json("run", "tasks.py", "hello", "--name", "Ada")
    assert (
        first["outputs"] == {"o0": "Hello, Ada!"}
        and first["phase"] == "succeeded"
        and first["error"] is None
    )
    assert (
        set(states(first).values()) == {"made"}
        and {"discovery", "tree", "bundle"} <= states(first).keys()
    )
    second = flyte.json("run", "tasks.py", "hello")
    assert set(states(second).values()) == {"cached"}
    assert (
        second["counters"]["files_read"]
        == second["counters"]["blobs_written"]
        == second["counters"]["requests"]
        == 0
    )
    assert first["run"] != second["run"] and Path(second["url"].removeprefix("file://")).is_dir()


def test_async_tasks_call_tasks(flyte: Shell) -> None:
    """The call of a task inside a run returns its result."""
    assert flyte.json("run", "tasks.py", "hello_async", "--name", "ada")["outputs"] == {
        "o0": "Hello, ADA!"
    }


def test_a_change_is_named(flyte: Shell) -> None:
    """`cache why` gives the same reasons as the run after it, and changes nothing."""
    flyte("run", "tasks.py", "hello")
    with open(flyte.project / "tasks.py", "a") as file:
        file.write("# more\n")
    for _ in range(2):
        nodes = {
            node["kind"]: node for node in flyte.json("cache", "why", "tasks.py", "hello")["nodes"]
        }
        assert {node["state"] for node in nodes.values()} == {"missing"}
        assert "tasks.py" in nodes["discovery"]["why"] and "tasks.py" in nodes["tree"]["why"]
    result = flyte.json("run", "tasks.py", "hello")
    assert states(result)["tree"] == "made" and "1 file changed: tasks.py" in str(
        result["prepared"]
    )
    assert all(
        node["state"] == "cached" for node in flyte.json("cache", "why", "tasks.py")["nodes"]
    )


def test_switching_back_and_forth_hits(flyte: Shell) -> None:
    """Switching back to an earlier state of a file is a cache hit."""
    for text in (TASKS, TASKS + "# other\n"):
        (flyte.project / "tasks.py").write_text(text)
        flyte("run", "tasks.py", "hello")
    (flyte.project / "tasks.py").write_text(TASKS)
    assert set(states(flyte.json("run", "tasks.py", "hello")).values()) == {"cached"}


def test_no_cache_makes_all_anew(flyte: Shell) -> None:
    """`--no-cache` rebuilds everything."""
    flyte("run", "tasks.py", "hello")
    result = flyte.json("run", "--no-cache", "tasks.py", "hello")
    assert set(states(result).values()) == {"made"}


def test_a_volatile_import_is_not_recorded_and_said(flyte: Shell) -> None:
    """An import that uses a clock, a process or a socket is noted, and repeated in each run."""
    for line in (
        "import time; NOW = time.time()",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket()",
    ):
        (flyte.project / "tasks.py").write_text(line + "\n" + TASKS)
        for _ in range(2):
            result = flyte("-of", "json", "run", "tasks.py", "hello")
            assert (
                states(json.loads(result.stdout))["discovery"] == "made"
                and "its result is not cached" in result.stderr
            )


def test_deleting_the_cache_loses_no_run(flyte: Shell) -> None:
    """Deleting the cache costs time, and loses no run."""
    first = flyte.json("run", "tasks.py", "hello")
    for folder, _, _ in os.walk(flyte.home / "cache"):
        os.chmod(folder, 0o700)
    shutil.rmtree(flyte.home / "cache")
    assert flyte.json("get", "run", first["run"])["phase"] == "succeeded"
    again = flyte.json("run", "tasks.py", "hello")
    assert [node["digest"] for node in again["prepared"]] == [
        node["digest"] for node in first["prepared"]
    ]


def test_collecting_everything_leaves_a_store_that_works(flyte: Shell) -> None:
    """Collecting everything leaves a working store, and a dry run shows what is removed."""
    flyte("run", "tasks.py", "hello")
    planned = flyte.json("cache", "gc", "--dry-run", "--keep", "0s")
    done = flyte.json("cache", "gc", "--keep", "0s")
    assert planned["removed"] == done["removed"] and done["bytes"] > 0 and done["kept"] == 0
    assert flyte.json("cache", "stats")["blobs"] == 0
    assert flyte("run", "tasks.py", "hello").stdout == "Hello, World!\n"


def test_what_is_asked_for_and_not_acted_on_is_kept_and_said(flyte: Shell) -> None:
    """Ignored options are recorded, noted once with those of the task, and kept by a rerun.

    Invalid values are refused.
    """
    (flyte.project / "queued.py").write_text(
        "import flyte\nenv = flyte.TaskEnvironment(name='t', queue='mine',"
        " interruptible=True)\n@env.task\ndef one() -> int: return 1\n"
    )
    options = [
        "--queue",
        "q",
        "--service-account",
        "robot@place",
        "--max-action-concurrency",
        "3",
        "--raw-data-path",
        "s3://bucket/raw",
    ]
    said = "engine ignores: interruptible, overwrite_cache, queue, raw_data_path, service_account."
    for command in (
        ["run", "--name", "first", "--overwrite-cache", *options, "queued.py", "one"],
        ["rerun", "--name", "again", "first"],
    ):
        errors = flyte(*command).stderr
        assert errors.count("engine ignores:") == 1 and said in errors
    documents = [
        json.loads((flyte.home / f"data/v1/runs/{name}/action.json").read_text())
        for name in ("first", "again")
    ]
    assert [each["max_actions"] for each in documents] == [3, 3]
    kept = [each["options"] for each in documents]
    assert (
        kept[0]
        == kept[1]
        == {
            "overwrite_cache": True,
            "queue": "q",
            "service_account": "robot@place",
            "raw_data_path": "s3://bucket/raw",
        }
    )
    for wrong in (
        ["--queue", "a b"],
        ["--service-account", ""],
        ["--max-action-concurrency", "0"],
        ["--raw-data-path", "queued.py"],
    ):
        assert wrong[0] in flyte("run", *wrong, "queued.py", "one", exit_code=2).stderr


def test_deleting_the_local_cache_is_collecting_all_of_it(flyte: Shell) -> None:
    """`delete local-cache` empties the cache; runs stay, and the next one prepares anew."""
    run = flyte.json("run", "tasks.py", "hello")["run"]
    planned = flyte.json("cache", "gc", "--keep", "0s", "--dry-run")
    assert flyte.json("delete", "local-cache") == planned and planned["removed"]
    assert flyte.json("get", "io", run)["outputs"] == {"o0": "Hello, World!"}
    assert set(states(flyte.json("run", "tasks.py", "hello")).values()) == {"made"}


def test_collecting_beside_a_running_task_leaves_its_code(flyte: Shell) -> None:
    """The lease of a run keeps its code during a collection."""
    command = flyte.start("run", "tasks.py", "for_ever")
    assert command.stdout and command.stdout.readline() == "started\n"
    assert flyte.json("cache", "stats")["leases"] == 1
    flyte("cache", "gc", "--keep", "0s")
    code = list((flyte.home / "cache/v1/extractions").glob("*/code/tasks.py"))
    assert len(code) == 1
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=30)


def test_a_corrupt_store_heals_while_the_command_succeeds(flyte: Shell) -> None:
    """A command succeeds with a store whose blobs are all corrupt and whose extraction is gone."""
    flyte("run", "tasks.py", "hello")
    for blob in (flyte.home / "cache/v1/blobs/sha256").iterdir():
        os.chmod(blob, 0o644)
        blob.write_bytes(b"broken")
    for folder, _, _ in os.walk(flyte.home / "cache/v1/extractions"):
        os.chmod(folder, 0o700)
    shutil.rmtree(flyte.home / "cache/v1/extractions")
    assert flyte("run", "tasks.py", "hello").stdout == "Hello, World!\n"


@pytest.mark.slow
def test_twenty_commands_share_one_store(flyte: Shell) -> None:
    """Twenty commands at once share a store that is empty at first."""
    commands = [
        flyte.start("run", "tasks.py", "hello", "--name", str(number)) for number in range(20)
    ]
    for number, command in enumerate(commands):
        output, errors = command.communicate(timeout=120)
        assert command.returncode == 0 and output == f"Hello, {number}!\n", errors
    assert len(flyte.json("get", "run")) == 20
    assert flyte.json("cache", "verify")["bad"] == []


@pytest.mark.parametrize("layout", ["src", "package", "folder", "outside"])
def test_projects_of_every_layout_run(flyte: Shell, tmp_path: Path, layout: str) -> None:
    """Projects of every layout run.

    They have a src layout, a dotted package with relative imports, a subdirectory with a sibling,
    or a file outside of the current directory.
    """
    task = (
        "import flyte\n{imports}\nenv = flyte.TaskEnvironment(name='layout')\n@env.task\ndef job()"
        " -> str:\n    return {value}\n"
    )
    root = flyte.project
    files = {
        "src": {
            "src/app/__init__.py": "",
            "src/app/lib.py": "V = 'src'",
            "src/app/jobs.py": task.format(imports="from app.lib import V", value="V"),
        },
        "package": {
            "a/__init__.py": "",
            "a/b/__init__.py": "",
            "a/lib.py": "V = 'package'",
            "a/b/jobs.py": task.format(imports="from ..lib import V", value="V"),
        },
        "folder": {
            "jobs/sibling.py": "V = 'folder'",
            "jobs/jobs.py": (
                task.format(imports="", value="__import__('sibling').V") + "import sibling\n"
            ),
        },
        "outside": {
            "../other/pyproject.toml": "",
            "../other/lib.py": "V = 'outside'",
            "../other/x/jobs.py": task.format(imports="import lib", value="lib.V"),
        },
    }[layout]
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    file = next(path for path in files if path.endswith("jobs.py"))
    assert flyte("run", file, "job").stdout == f"{layout}\n"
    assert flyte("run", "--local", file, "job").stdout == f"{layout}\n"


def test_the_store_is_in_no_bundle_wherever_it_is(flyte: Shell) -> None:
    """A store below the project's root is not bundled: it changes with each run."""
    inside = {"FLYTE_HOME": str(flyte.project / "store")}
    flyte("run", "--copy-style", "all", "tasks.py", "hello", env=inside)
    assert all(
        node["state"] == "cached"
        for node in flyte.json("run", "--copy-style", "all", "tasks.py", "hello", env=inside)[
            "prepared"
        ]
    )
    listed = flyte.json("bundle", "ls", "--copy-style", "all", "tasks.py", env=inside)
    assert not [file for file in listed["files"] if file["path"].startswith("store/")]
    why = ("bundle", "ls", "--copy-style", "all", "--why")
    assert (
        "the rule `*` of store/cache/.gitignore:1"
        in flyte(*why, "store/cache/v1/oci-layout", "tasks.py", env=inside).stdout
    )
    assert (
        "store is not in the bundle: it contains no files."
        in flyte(*why, "store", "tasks.py", env=inside).stdout
    )
    assert (
        flyte(*why, ".", "tasks.py", env=inside).stdout
        == ". is a directory that contains 1 of the bundle's files.\n"
    )


def test_bundle_ls_agrees_with_run(flyte: Shell) -> None:
    """`bundle ls` has a run's tree, names the rules that exclude files, and fails as a run does."""
    (flyte.project / ".gitignore").write_text("*.log\n")
    (flyte.project / "x.log").write_text("log")
    listed = flyte.json("bundle", "ls", "--copy-style", "all", "tasks.py")
    result = flyte.json("run", "--copy-style", "all", "tasks.py", "hello")
    assert listed["digest"] == next(
        node["digest"] for node in result["prepared"] if node["kind"] == "tree"
    )
    assert [entry["path"] for entry in listed["files"]] == [".gitignore", "tasks.py"]
    assert {"path": "x.log", "rule": ".gitignore:1: *.log"} in listed["excluded"]
    assert sum(pack["files"] for pack in listed["packs"]) == 2
    assert (
        "the rule `*.log` of .gitignore:1 excludes x.log"
        in flyte("bundle", "ls", "--copy-style", "all", "--why", "x.log", "tasks.py").stdout
    )
    (flyte.project / ".env").write_text("KEY=1")
    for command in (["bundle", "ls"], ["run"]):
        rest = ["hello"] if command == ["run"] else []
        assert (
            ".env" in flyte(*command, "--copy-style", "all", "tasks.py", *rest, exit_code=3).stderr
        )
    (flyte.project / "flyte.toml").write_text('[bundle]\nallow_secrets = [".env"]\n')
    flyte("run", "--copy-style", "all", "tasks.py", "hello")


def test_one_edited_file_remakes_one_pack(flyte: Shell) -> None:
    """The edit of one file rebuilds one pack of many, and writes little."""
    for number in range(1500):
        path = flyte.project / f"p{number % 10}" / f"m{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(8000))
    flyte("run", "--copy-style", "all", "tasks.py", "hello")
    unchanged = flyte.json("run", "--copy-style", "all", "tasks.py", "hello")
    assert unchanged["counters"]["files_read"] == 0 and set(states(unchanged).values()) == {
        "cached"
    }
    (flyte.project / "p3/m3.py").write_bytes(os.urandom(8000))
    result = flyte.json("run", "--copy-style", "all", "tasks.py", "hello")
    packs = [node["state"] for node in result["prepared"] if node["kind"] == "pack"]
    assert packs.count("made") == 1 and len(packs) > 4
    assert result["counters"]["bytes_written"] < 4 << 20


@pytest.mark.parametrize("style", ["all", "loaded_modules"])
def test_an_edit_of_an_unused_file_keeps_discovery(flyte: Shell, style: str) -> None:
    """An edit of an unused file does not rebuild discovery."""
    (flyte.project / "other.py").write_text("x = 1\n")
    flyte("run", "--copy-style", style, "tasks.py", "hello")
    (flyte.project / "other.py").write_text("x = 2\n")
    result = states(flyte.json("run", "--copy-style", style, "tasks.py", "hello"))
    assert result["discovery"] == "cached" and result["tree"] == (
        "made" if style == "all" else "cached"
    )


def test_names_are_readable_in_the_posix_locale(flyte: Shell) -> None:
    """Non-ASCII names are readable in the POSIX locale: in tracebacks, tables and results.

    UTF-8 mode is off here.
    """
    (flyte.project / "t\u00e4sk.py").write_text(
        "import flyte\nenv = flyte.TaskEnvironment(name='t')\n@env.task\n"
        "def fails(name: str) -> str: raise ValueError(name)\n@env.task\n"
        "def gives(name: str) -> str: return name\n",
        encoding="utf-8",
    )
    env = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    failed = flyte("run", "t\u00e4sk.py", "fails", "--name", "\u00fc", env=env, exit_code=1).stderr
    assert 'File "t\u00e4sk.py", line 4' in failed and "ValueError: \u00fc" in failed
    assert flyte("run", "t\u00e4sk.py", "gives", "--name", "\u00fc", env=env).stdout == "\u00fc\n"
    assert "t\u00e4sk.py" in flyte("graph", "t\u00e4sk.py", env=env).stdout
    assert (
        "no_such_\u00e4.py" in flyte("run", "no_such_\u00e4.py", "x", env=env, exit_code=2).stderr
    )


def test_why_a_file_is_out_names_the_rule_and_the_remedy(flyte: Shell) -> None:
    """`bundle ls --why` names the rule, built-in or not, and the remedy.

    A built-in rule would still exclude the file with `--copy-style all`.
    """
    write_files(flyte.project, {"build/x.py": b"", "a.log": b"", ".gitignore": b"*.log\n"})

    def why(path: str, *options: str) -> str:
        return flyte("bundle", "ls", *options, "--why", path, "tasks.py").stdout

    everything = ("--copy-style", "all")
    assert "the rule `*.log` of .gitignore:1 excludes a.log." in why("a.log", *everything)
    assert "the built-in rule `build/` excludes build/." in why("build/x.py", *everything)
    assert "nothing imports it" in why("build/x.py") and "built-in rule" in why("build/x.py")
    assert "or use `--copy-style all`" not in why("build/x.py")
    (flyte.project / ".flyteignore").write_text("!/build/\n")
    assert why("build/x.py", *everything) == "build/x.py is in the bundle: no rule excludes it.\n"
