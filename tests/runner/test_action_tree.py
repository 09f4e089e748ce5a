"""The folded tree of a run's actions."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from flyte_build.cas.digest import Digest
from flyte_build.cli.action_tree import FEW, ActionTree, Fold, Folds
from flyte_build.runner.history.actions import Actions, NewAction, read_actions
from flyte_build.runner.history.rows import ActionRow
from flyte_build.runner.history.schema import open_tables
from flyte_build.runner.history.tree import TreeRows, read_tree
from flyte_build.runner.result import Failure, Phase, Result
from tests.support.command import Shell

PHASES: Sequence[Phase] = ("queued", "running", "succeeded", "failed", "timed_out", "aborted")
ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 200),  # Which of the actions before is the parent.
        st.sampled_from(["a", "b"]),  # The task.
        st.sampled_from(["", "g"]),  # The group.
        st.sampled_from(PHASES),
    ),
    max_size=60,
)


def record(path: Path, actions: Sequence[tuple[int, str, str, Phase]]) -> tuple[TreeRows, TreeRows]:
    """Record actions, and return what is read of them for a folded tree, and all of them."""
    database = open_tables(str(path / "history.sqlite"), lambda aside: None)
    recorder = Actions(database, "run", durable=False)
    names = ["a0"]
    with recorder.commit():
        for number, (parent, task, group, phase) in enumerate(actions):
            name = "a" + Digest.of(str(number).encode()).hex[:15]
            above = names[parent % len(names)]
            recorder.queued(NewAction(name, above, task, group, "process", {}), 1.0)
            if phase != "queued":
                recorder.started(name, 1, 2.0)
            if phase not in ("queued", "running"):
                error = None if phase == "succeeded" else Failure("E", "no")
                recorder.ended(name, 1, Result(phase, error=error), 3.0)
            names.append(name)
    read = read_tree(database, "run", FEW)
    whole = replace(read, actions=read_actions(database, "run"))
    database.close()
    return read, whole


def lines(rows: TreeRows) -> list[tuple[int, ActionRow | Fold]]:
    """Return the lines of a tree."""
    root = ActionRow("a0", "main", None, "", "", "running", 1, False, 0.0, 0.0, None, "")
    return list(Folds(ActionTree(root, rows.actions, rows.names), rows).lines())


@given(ACTIONS)
def test_a_tree_needs_only_what_it_shows(actions: list[tuple[int, str, str, Phase]]) -> None:
    """The lines are the same whether all actions are read, or those that may be shown.

    Each action is on a line, in a fold, or counted as hidden below one.
    """
    with tempfile.TemporaryDirectory() as folder:
        read, whole = record(Path(folder), actions)
    found = lines(read)
    assert found == lines(whole)
    shown = folded = hidden = opened = 0
    for _, line in found:
        if isinstance(line, Fold):
            folded += line.alike.number
            hidden += line.hidden
            opened += len(line.opened)
        else:
            shown += 1
    assert shown - opened + folded + hidden == len(actions) + 1


def test_a_wide_run_is_read_in_part(tmp_path: Path) -> None:
    """Of 1,000 calls that are alike, the failed ones are read."""
    phases: list[Phase] = ["failed" if number % 500 == 1 else "succeeded" for number in range(1000)]
    read, _ = record(tmp_path, [(0, "a", "", phase) for phase in phases])
    assert [row.phase for row in read.actions] == ["failed", "failed"]
    assert [row.why for row in read.actions] == ["no", "no"]
    (_, root), (depth, fold), *failed = lines(read)
    assert isinstance(root, ActionRow) and isinstance(fold, Fold) and depth == 1
    assert fold.alike.phases == {"succeeded": 998, "failed": 2} and len(failed) == 2


def test_an_older_history_gets_what_the_tree_needs(flyte: Shell) -> None:
    """A history without the index of the tree is upgraded."""
    flyte("run", "--name", "one", "tasks.py", "hello_async", "--name", "x")
    path = flyte.home / "data/v1/history.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("DROP INDEX actions_tree")
        database.execute("PRAGMA user_version=3")
    assert "t.child" in flyte("get", "run", "one").stdout
