"""`flyte cache warm`: all artifacts of files are prepared and published, and nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cas.registry.test_shared_cache import at, records
from tests.support.command import Shell
from tests.support.faults import FaultProxy
from tests.support.registries import Server

OTHER = """
import flyte
env = flyte.TaskEnvironment(name="other")
@env.task
def twice(x: int) -> int:
    raise SystemExit("a task was run")
"""


@pytest.fixture
def files(flyte: Shell) -> Shell:
    """Files with tasks and others.

    Two have tasks, one only imports flyte, one does not, and others are in no bundle.
    """
    for name, text in {
        "jobs/other.py": OTHER,
        "jobs/shared.py": "import flyte\n",
        "plain.py": "1/0\n",
        ".venv/lib/x.py": "1/0\n",
        "ignored/y.py": "import flyte\n1/0\n",
        ".gitignore": "ignored/\n",
        "flyte.toml": "",
    }.items():
        (flyte.project / name).parent.mkdir(parents=True, exist_ok=True)
        (flyte.project / name).write_text(text)
    return flyte


def test_the_second_warm_sends_nothing(files: Shell, repository: str) -> None:
    """A second warm-up sends two requests for each bundle, and a run after it builds nothing."""
    first = files.json("cache", "warm", "--registry", repository, "tasks.py", "jobs/other.py")
    bundles = [node for node in first["nodes"] if node["kind"] == "bundle"]
    assert {(node["file"], node["state"], node["published"]) for node in bundles} == {
        ("tasks.py", "made", True),
        ("jobs/other.py", "made", True),
    }
    assert len(records(repository)) == 2
    second = files.json("cache", "warm", "--registry", repository, "tasks.py", "jobs/other.py")
    assert (
        second["counters"]["requests"] == 4
        and second["counters"]["bytes_sent"] == second["counters"]["layers_made"] == 0
    )
    assert {node["from"] for node in second["nodes"]} == {"local"}
    assert files.json("run", "tasks.py", "hello")["counters"]["layers_made"] == 0
    assert files.json("get", "run")[0]["task"] == "t.hello" and len(files.json("get", "run")) == 1


def test_files_at_the_same_time_are_each_published_once(
    files: Shell, registry: Server, repository: str
) -> None:
    """Concurrent files are each published once, and so are artifacts left by earlier commands."""
    with FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        with proxy.down():
            files("run", "--registry", place, "tasks.py", "hello")
        for number in range(6):
            (files.project / f"more{number}.py").write_text(OTHER)
        names = [f"more{number}.py" for number in range(6)]
        files("cache", "warm", "--registry", place, "--jobs", "4", "jobs/other.py", *names)
        assert len(proxy.seen("PUT", "/manifests/record.")) == len(records(repository)) == 8


def test_all_files_below_the_root(files: Shell) -> None:
    """`--all` prepares the files with tasks that ignore rules do not exclude, registry or not."""
    done = files.json("cache", "warm", "--all", "--jobs", "3")
    assert {node["file"] for node in done["nodes"]} == {"tasks.py", "jobs/other.py"} and done[
        "errors"
    ] == []
    assert {node["published"] for node in done["nodes"]} == {None}
    assert "either files or --all" in files("cache", "warm", exit_code=2).stderr
    assert (
        "either files or --all" in files("cache", "warm", "--all", "tasks.py", exit_code=2).stderr
    )
    assert (
        "No file below this directory"
        in files("cache", "warm", "--all", "--root-dir", ".venv", exit_code=2).stderr
    )


def counts(machine: Shell) -> dict[str, Any]:
    """Return the counts of a cache's contents, without sizes, which change with its use."""
    return {
        name: count
        for name, count in machine.json("cache", "stats").items()
        if name not in ("bytes", "parts")
    }


def test_a_check_changes_nothing(files: Shell, repository: str) -> None:
    """`--check` changes nothing, and fails if something is missing here or in the repository.

    A machine that could fetch everything passes.
    """
    check = ("cache", "warm", "--check", "--registry", repository, "tasks.py")
    before = counts(files)
    assert "missing" in files(*check, exit_code=3).stdout
    assert counts(files) == before and at(repository).tags() == []
    files("run", "tasks.py", "hello")
    assert (
        "cached, not published" in files(*check, exit_code=3).stdout and at(repository).tags() == []
    )
    files("cache", "warm", "--registry", repository, "tasks.py")
    files(*check)
    fresh = Shell(files.project, files.home.parent / "fresh")
    assert repository in fresh(*check).stdout
    assert fresh.json("cache", "stats")["blobs"] == 0


def test_what_the_registry_has_lost_is_published_again(files: Shell, repository: str) -> None:
    """Lost artifacts of the registry are published again, in spite of the ledger."""
    files("cache", "warm", "--registry", repository, "tasks.py")
    (tag,) = records(repository)
    index = at(repository).manifest(tag)
    assert index is not None
    for digest in (index.digest, index.manifests[0].digest):
        at(repository).delete_manifest(digest)
    assert (
        files.json("cache", "warm", "--registry", repository, "tasks.py")["counters"]["bytes_sent"]
        > 0
    )
    assert records(repository) == [tag]


def test_one_file_that_fails_does_not_stop_the_others(files: Shell, repository: str) -> None:
    """A file that fails is named in every form of output, and does not stop the others."""
    (files.project / "broken.py").write_text("import flyte\n1/0\n")
    done = files("cache", "warm", "--registry", repository, "broken.py", "tasks.py", exit_code=3)
    assert (
        "ZeroDivisionError" in done.stderr
        and "ready     tasks.py" in done.stderr
        and len(records(repository)) == 1
    )
    document = files.json(
        "cache", "warm", "--registry", repository, "broken.py", "tasks.py", exit_code=3
    )
    assert [error["file"] for error in document["errors"]] == ["broken.py"]


@pytest.mark.slow
def test_a_registry_that_is_down_fails(files: Shell, registry: Server, repository: str) -> None:
    """A registry that is down fails a warm-up, whose purpose is to publish."""
    with FaultProxy(registry.url) as proxy:
        place = proxy.repository(repository.partition("/")[2])
        with proxy.down():
            assert (
                place in files("cache", "warm", "--registry", place, "tasks.py", exit_code=3).stderr
            )
        files("cache", "warm", "--registry", place, "tasks.py")


def test_the_summary_for_a_job_page(files: Shell, tmp_path: Path) -> None:
    """The summary for a job page is a Markdown table, appended to the file."""
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    files("cache", "warm", "--summary", str(page), "tasks.py", "jobs/other.py")
    head, title, _, columns, *rows = page.read_text().splitlines()
    assert (
        head == "before"
        and title == "### flyte cache warm: 2 of 2 files ready"
        and columns == "| file | what | state | from | why |"
    )
    assert rows[1:3] == [
        "| tasks.py | bundle | made |  | first time |",
        "| jobs/other.py | bundle | made |  | first time |",
    ]
