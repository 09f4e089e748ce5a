"""Checkpoints: what an attempt saves for the next one, or for a recovered run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyte_build.runner.worker.checkpoint import Checkpoint, latest_checkpoint
from tests.support.command import Shell

TASKS = """
import flyte

env = flyte.TaskEnvironment(name="k")

@env.task(retries=3)
def counts(n: int) -> list[int]:
    checkpoint = flyte.ctx().checkpoint
    path = checkpoint.load_sync()
    start = int(path.read_bytes()) if path else 0
    if start < n:
        checkpoint.save_sync(str(start + 1).encode())
        raise RuntimeError(f"at {start}")
    return [start, flyte.ctx().attempt_number]

@env.task
async def parent(n: int) -> list[int]:
    return await counts.aio(n)

@env.task
async def folders(n: int) -> str:
    checkpoint = flyte.ctx().checkpoint
    before = await checkpoint.load()
    if before is None:
        (checkpoint.path / "a").mkdir()
        (checkpoint.path / "a" / "last.ckpt").write_text("7")
        await checkpoint.save(checkpoint.path)
        raise RuntimeError("again")
    found = flyte.latest_checkpoint(before)
    return f"{found.relative_to(before)} {found.read_text()} {checkpoint.prev_exists()}"
"""
PLACES = pytest.mark.parametrize("options", [(), ("--local",)], ids=["prepared", "local"])


@pytest.fixture
def project(flyte: Shell) -> Shell:
    """A project with tasks that save checkpoints."""
    (flyte.project / "saves.py").write_text(TASKS)
    return flyte


@PLACES
def test_a_retry_continues_where_the_last_attempt_stopped(
    project: Shell, options: tuple[str, ...]
) -> None:
    """The root and a child have checkpoints of their own, which are gone after a success."""
    for task in ("counts", "parent"):
        done = project.json("run", *options, "saves.py", task, "--n", "2")
        assert done["outputs"] == {"o0": [2, 2]}
        assert not list(Path(done["url"].removeprefix("file://")).rglob("saved-*"))


def test_a_recovered_run_continues_where_the_other_stopped(project: Shell) -> None:
    """A failed root or child keeps its checkpoint; also a directory can be one."""
    failed = project.json("run", "saves.py", "parent", "--n", "6", exit_code=1)
    done = project.json("rerun", "--recover", failed["run"])
    assert done["outputs"] == {"o0": [6, 2]}
    failed = project.json("run", "saves.py", "folders", "--n", "1", exit_code=1)
    done = project.json("rerun", "--recover", failed["run"])
    assert done["outputs"] == {"o0": "a/last.ckpt 7 True"}


@pytest.mark.quick
def test_the_newest_checkpoint_counts(tmp_path: Path) -> None:
    """Bytes, files and directories come back as they were, and the older ones are removed."""
    checkpoint = Checkpoint(str(tmp_path / "checkpoint"))
    assert checkpoint.load_sync() is None and not checkpoint.prev_exists()
    (tmp_path / "file").write_text("file")
    (tmp_path / "folder/sub").mkdir(parents=True)
    (tmp_path / "folder/payload").write_text("one of the folder's files")
    for data in (b"bytes", tmp_path / "file", str(tmp_path / "folder")):
        checkpoint.save_sync(data)
        assert len(list((tmp_path / "checkpoint").glob("saved-*"))) == 1
        loaded = Checkpoint(str(tmp_path / "checkpoint")).load_sync()
        assert loaded is not None
        if loaded.is_dir():
            assert {path.name for path in loaded.iterdir()} == {"sub", "payload"}
        else:
            assert loaded.name == "payload" and loaded.read_bytes() in (b"bytes", b"file")
    with pytest.raises(FileNotFoundError):
        checkpoint.save_sync(tmp_path / "missing")
    assert Checkpoint(str(tmp_path / "checkpoint")).prev_exists()
    assert latest_checkpoint(tmp_path, "*.ckpt") is None
