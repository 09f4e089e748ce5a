"""`flyte graph`: the nodes of a file, cached or not, with sizes, reasons, and dependencies."""

from __future__ import annotations

import os
import re
from typing import Any

from tests.support.command import Shell


def nodes(document: Any) -> dict[str, dict[str, Any]]:
    """Return the nodes by their names."""
    return {node["id"]: node for node in document["nodes"]}


def test_the_graph_of_a_file(flyte: Shell) -> None:
    """Nodes are missing at first and cached after a run; dependencies come first.

    The command itself builds nothing.
    """
    first = flyte.json("graph", "tasks.py")
    assert {each["state"] for each in first["nodes"]} == {"missing"} and {
        each["why"] for each in first["nodes"]
    } == {"first time"}
    assert first["edges"] == [
        ["discovery", "tree"],
        ["tree", "bundle"],
        ["tree", "pack 0"],
        ["pack 0", "bundle"],
    ]
    assert (
        flyte.json("cache", "stats")["records"] == 0 and flyte.json("cache", "stats")["blobs"] == 0
    )
    run = flyte.json("run", "tasks.py", "hello")
    assert {node["state"] for node in run["prepared"]} == {"made"}
    found = flyte.json("graph", "tasks.py")
    assert (
        found["edges"] == first["edges"]
        and flyte.json("graph", "--format", "json", "tasks.py")["edges"] == first["edges"]
    )
    held = nodes(found)
    assert {each["state"] for each in held.values()} == {"cached"} and {
        each["why"] for each in held.values()
    } == {""}
    assert {each["kind"]: each["key"] for each in run["prepared"]} == {
        each["kind"]: each["key"] for each in held.values()
    }
    assert held["tree"]["size"] == (flyte.project / "tasks.py").stat().st_size
    total = sum(
        path.stat().st_size for path in (flyte.home / "cache" / "v1" / "blobs" / "sha256").iterdir()
    )
    assert (
        held["discovery"]["size"] + held["bundle"]["size"] == total
        and 0 < held["pack 0"]["size"] < held["bundle"]["size"]
    )


def test_an_edit_shows_which_packs_are_missing(flyte: Shell) -> None:
    """After an edit, one pack of many is missing, and a run builds just that one."""
    for number in range(1500):
        path = flyte.project / f"p{number % 10}" / f"m{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(6000))
    flyte("run", "--copy-style", "all", "tasks.py", "hello")
    (flyte.project / "p3" / "m3.py").write_bytes(b"edited")
    found = nodes(flyte.json("graph", "--copy-style", "all", "tasks.py"))
    missing = [name for name, each in found.items() if each["state"] == "missing"]
    assert missing[0] == "tree" and missing[-1] == "bundle" and len(missing) == 3 and len(found) > 5
    assert found["tree"]["why"] == "1 file changed: p3/m3.py" and found[missing[1]]["size"] is None
    run = flyte.json("run", "--copy-style", "all", "tasks.py", "hello")
    assert [
        each["name"]
        for each in run["prepared"]
        if each["kind"] == "pack" and each["state"] == "made"
    ] == [missing[1]]


def test_what_cannot_be_known_yet_is_missing(flyte: Shell) -> None:
    """A node whose blob is missing gives that as the reason; a bundle without code has no packs."""
    flyte("run", "tasks.py", "hello")
    held = nodes(flyte.json("graph", "tasks.py"))
    (
        flyte.home
        / "cache"
        / "v1"
        / "blobs"
        / "sha256"
        / held["bundle"]["digest"].removeprefix("sha256:")
    ).unlink()
    found = nodes(flyte.json("graph", "tasks.py"))
    assert (
        found["bundle"]["state"] == "missing" and "no longer in the store" in found["bundle"]["why"]
    )
    assert found["pack 0"]["state"] == "cached" and found["bundle"]["size"] is None
    assert list(nodes(flyte.json("graph", "--copy-style", "none", "tasks.py"))) == [
        "discovery",
        "tree",
        "bundle",
    ]
    (flyte.project / "wrong.py").write_text("1/0")
    assert "ZeroDivisionError" in flyte("graph", "wrong.py", exit_code=3).stderr


def test_as_text_and_as_a_flowchart(flyte: Shell) -> None:
    """The text has a line for each node; Mermaid declares each node once, and joins only those."""
    flyte("run", "tasks.py", "hello")
    (flyte.project / 'a"b<c>#.py').write_text(
        "import flyte\nenv = flyte.TaskEnvironment(name='e')\n@env.task\ndef hi() -> int:\n   "
        " return 1\n"
    )
    lines = flyte("graph", "tasks.py").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["cached", each] for each in ("discovery", "tree", "pack", "bundle")
    ]
    assert lines[3].endswith("<- tree, pack 0") and re.search(r"\d+\.\d kB", lines[1])
    for file in ("tasks.py", 'a"b<c>#.py'):
        head, *chart = flyte("graph", "--format", "mermaid", file).stdout.splitlines()
        declared = [
            match[1]
            for line in chart
            if (
                match := re.fullmatch(
                    r'    (n\d+)\["[^"<>]*(?:<br>[^"<>]*)*"\]:::(cached|missing)', line
                )
            )
        ]
        joined = [
            match.groups()
            for line in chart
            if (match := re.fullmatch(r"    (n\d+) --> (n\d+)", line))
        ]
        styles = [line for line in chart if line.startswith("    classDef ")]
        assert head == "flowchart LR" and declared == ["n0", "n1", "n2", "n3"]
        assert len(joined) == 4 and {name for pair in joined for name in pair} == set(declared)
        assert len(chart) == len(declared) + len(joined) + len(styles)
