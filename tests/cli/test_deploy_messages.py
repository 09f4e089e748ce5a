"""Messages of the deployment commands: names, differences, foreign text, and long lists."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploying import TASKS, Deploying, write
from tests.support.layouts import Layout

SECRET = "hunter2"  # To be found nowhere.


@pytest.fixture
def flyte(project: Path, tmp_path: Path) -> Deploying:
    """The command in a project with two tasks, without a registry."""
    write(project)
    shell = Deploying(project, tmp_path / "home")
    shell.place = {}
    return shell


def change(flyte: Deploying, *pairs: tuple[str, str]) -> None:
    """Write the tasks with these replacements."""
    text = TASKS
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    (flyte.project / "tasks.py").write_text(text)


def test_differences_are_said_in_the_words_of_the_file(flyte: Deploying) -> None:
    """Differences are reported in the terms of the file.

    For a task, input or output that only one side has, that alone is reported.
    """
    flyte.deploy("--version", "v1", "tasks.py")
    reads, wrote = "@env.task\ndef reads() -> str:", "@env.task\ndef wrote(x: int = 1) -> str:"
    change(
        flyte,
        ('name: str = "World"', 'name: str = "You", times: int = 1'),
        ("retries=1", "retries=2"),
        ("Who is", "Who was"),
        (reads, wrote),
    )
    flyte.deploy("--version", "v2", "tasks.py")
    lines = flyte("diff", "greet:v1", "greet:v2").stdout.splitlines()
    assert lines == [
        "interface",
        "  hello: input name: default World -> You",
        "  hello: input name: description Who is greeted. -> Who was greeted.",
        "  hello: input times added",
        "settings",
        "  hello: retries 1 -> 2",
        "tasks",
        "  task reads removed",
        "  task wrote added",
        "files",
        "  ~ tasks.py",
    ]
    first = flyte.json("diff", "greet:v1", "greet:v2")["changes"][0]
    assert first == {
        "section": "interface",
        "task": "hello",
        "field": "input name: default",
        "how": "changed",
        "old": "World",
        "new": "You",
    }


def test_other_types_and_another_order_are_differences(flyte: Deploying) -> None:
    """Changed fields of a class, another order of inputs and a new output are differences.

    A class is named, and the order counts since inputs may be given by position.
    """
    head = "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
    change(
        flyte,
        ("import flyte\n", f"import flyte\n{head}"),
        ('name: str = "World") -> str', "a: P, b: int) -> str"),
    )
    flyte.deploy("--version", "v1", "tasks.py")
    change(
        flyte,
        ("import flyte\n", f"import flyte\n{head}    y: int = 1\n"),
        ('name: str = "World") -> str', "b: int, a: P) -> tuple[str, str]"),
    )
    flyte.deploy("--version", "v2", "tasks.py")
    lines = flyte("diff", "greet:v1", "greet:v2").stdout.splitlines()
    assert "  hello: input a: fields of its type changed" in lines
    assert "  hello: order of the inputs ['a', 'b'] -> ['b', 'a']" in lines
    assert "  hello: output o1 added" in lines


def test_the_value_of_a_variable_is_in_no_message(flyte: Deploying) -> None:
    """The refusal, the comparison and its JSON show no value of a variable, old or new."""
    change(flyte, ('{"A": "b"}', f'{{"A": "b", "KEY": "{SECRET}", "OLD": "{SECRET}"}}'))
    flyte.deploy("--version", "v1", "tasks.py")
    change(flyte, ('{"A": "b"}', f'{{"A": "b", "KEY": "{SECRET}3", "NEW": "{SECRET}"}}'))
    refused = flyte("deploy", "--version", "v1", "tasks.py", exit_code=3).stderr
    flyte.deploy("--version", "v2", "tasks.py")
    compared, as_json = (
        flyte(*more, "diff", "greet:v1", "greet:v2").stdout for more in ((), ("-of", "json"))
    )
    for said in (refused, compared):
        assert all(
            f"hello: variable {text}" in said
            for text in ("KEY changed", "NEW added", "OLD removed")
        )
    assert SECRET not in refused + compared + as_json


def test_what_others_wrote_is_shown_escaped(flyte: Deploying, tmp_path: Path) -> None:
    """File names, task texts and annotations of others are shown escaped.

    Anyone with write access to the repository can write annotations.
    """
    layout = Layout(tmp_path / "shared")
    flyte.place = {"FLYTE_REGISTRY": f"oci:{layout.folder}"}
    change(flyte, ("Who is greeted.", "Who \\x1b[31m is greeted."))
    (flyte.project / "a\x1b[31m\nb.py").write_text("")
    flyte.deploy("--version", "v1", "--copy-style", "all", "tasks.py")
    (flyte.project / "a\x1b[31m\nb.py").write_text("1")
    change(flyte, ("Who is greeted.", "Who \\x1b[32m is greeted."))
    refused = flyte(
        "deploy", "--version", "v1", "--copy-style", "all", "tasks.py", exit_code=3
    ).stderr.partition("error:")[2]
    flyte.deploy("--version", "v2", "--copy-style", "all", "tasks.py")

    def annotate(index: Any) -> None:
        host = {
            "python": "9.9",
            "implementation": "\x1b[5mX",
            "platform": "P",
            "distributions": {"a\x1b[31m": "1", "b": None},
        }
        index["annotations"] |= {
            "dev.flyte.user": "\x1b]0;x\x07evil\nuser",
            "org.opencontainers.image.created": "\x1b[2Jnow",
            "org.opencontainers.image.revision": "\x1b[1mrev",
            "dev.flyte.host": json.dumps(host),
            "dev.flyte.tasks": json.dumps(["hello", "g\x1b[31m"]),
        }

    layout.replace("default.development.greet.v2", annotate)
    said = [refused]
    for command in (
        "get deployment",
        "get deployment greet v2",
        "get task",
        "get task greet.hello:v2",
        "diff greet:v1 greet:v2",
    ):
        done = flyte(*command.split())
        said += [done.stdout, done.stderr]
    said.append(flyte("run", "deployed-task", "greet.hello:v2").stderr)
    everything = "\n".join(said)
    assert "\x1b" not in everything and "\x07" not in everything
    assert r"a\x1b[31m\nb.py" in refused and r"evil\nuser" in everything and r"\x1b[5mX" in said[-1]


def test_one_version_is_shown_however_it_is_named(flyte: Deploying) -> None:
    """All names of a version show the same deployment; an unknown one gets a suggestion.

    That includes an environment with a single task.
    """
    (flyte.project / "one.py").write_text(
        "import flyte\ne = flyte.TaskEnvironment(name='e1')\n@e.task\ndef f() -> None: ...\n"
    )
    flyte.deploy("--version", "v0", "one.py")
    change(flyte)
    pin = flyte.deploy("--version", "v1", "one.py", "--root-dir", ".")["digest"]
    for words in (["e1", "v1"], ["e1:v1"], [f"e1@{pin}"], ["e1:latest"]):
        shown = flyte.json("get", "deployment", *words)
        assert (shown["name"], shown["digest"]) == ("e1", pin)
        assert flyte("get", "deployment", *words).stdout.splitlines()[0].split() == ["name", "e1"]
    assert flyte.json("get", "task", "e1.f:v0")["version"] == "v0"
    for name, code, said in (
        ("E2", 4, "Did you mean e1?"),
        ("e1:v9", 4, "there are 2; the most similar: v1, v0"),
        ("a/b", 2, "'a/b' is not a valid environment name"),
    ):
        assert said in flyte("get", "deployment", name, exit_code=code).stderr
    assert (
        "Cannot use version 'v1'" in flyte("get", "deployment", "e1:v0", "v1", exit_code=2).stderr
    )
    gone = flyte("delete", "deployment", f"e1@sha256:{'1' * 64}", exit_code=4).stderr
    assert f"e1 has no deployment sha256:{'1' * 64}" in gone
    assert (
        "'ünï' is not a valid environment name"
        in flyte("run", "deployed-task", "ünï.f", exit_code=2).stderr
    )


def test_this_machine_is_called_so(flyte: Deploying) -> None:
    """Without a registry, messages speak of this machine, and not of a default directory.

    A single version is reported in the singular.
    """
    assert (
        "is known to this machine"
        in flyte("run", "deployed-task", "greet.hello", exit_code=4).stderr
    )
    assert (
        "This machine does not have it"
        in flyte("run", "deployed-task", f"greet.hello@sha256:{'0' * 64}", exit_code=4).stderr
    )
    flyte.deploy("--version", "v1", "tasks.py")
    assert "there is one: v1" in flyte("diff", "greet:v1", "greet:v2", exit_code=4).stderr


def test_where_a_task_is_deployed_is_said_after_its_command_too(
    flyte: Deploying, tmp_path: Path
) -> None:
    """The options in the hint about a task's domain work after `deployed-task`, too."""
    repository = f"oci:{tmp_path}/shared"
    flyte("deploy", "--domain", "production", "--registry", repository, "tasks.py")
    errors = flyte(
        "run", "deployed-task", "--registry", repository, "greet.hello", exit_code=4
    ).stderr
    assert "Add --project default --domain production." in errors
    asked = ("--project", "default", "--domain", "production", "--registry", repository)
    assert flyte("run", "deployed-task", *asked, "greet.hello").stdout == "Hello, World!\n"
    assert "ENV.TASK" in flyte("run", "deployed-task", "-h").stdout


@pytest.mark.slow
def test_a_registry_that_is_down_is_no_matter_of_pins_for_a_comparison(flyte: Deploying) -> None:
    """The hint about pins is shown to those who run a task, and not by a comparison."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flyte.place = {"FLYTE_REGISTRY": f"127.0.0.1:{taken.getsockname()[1]}/x"}
    assert "by its pin" in flyte("run", "deployed-task", "greet.hello", exit_code=3).stderr
    assert "pin" not in flyte("diff", "greet:v1", "greet:v2", exit_code=3).stderr


def test_long_lists_are_cut(flyte: Deploying) -> None:
    """Of three hundred tasks ten are shown."""
    tasks = "".join(f"@env.task\ndef t{number:03}() -> None: ...\n" for number in range(300))
    (flyte.project / "many.py").write_text(
        f"import flyte\nenv = flyte.TaskEnvironment(name='many')\n{tasks}"
    )
    assert "many.t009 and 290 more" in flyte("deploy", "many.py").stdout
    errors = flyte("run", "deployed-task", "many.zzz", exit_code=4).stderr
    assert "t009 and 290 more" in errors and "t010" not in errors


def test_it_is_said_for_which_file_of_many_something_is_made(flyte: Deploying) -> None:
    """Of several files, each one for which something is built is named before it."""
    (flyte.project / "one.py").write_text(
        "import flyte\ne = flyte.TaskEnvironment(name='e1')\n@e.task\ndef f() -> None: ...\n"
    )
    lines = flyte("deploy", "-r", ".").stderr.splitlines()
    assert [lines[lines.index(f"{name}:") + 1].split()[:2] for name in ("one.py", "tasks.py")] == [
        ["made", "discovery"]
    ] * 2
    assert "one.py:" not in flyte("deploy", "-r", ".").stderr
