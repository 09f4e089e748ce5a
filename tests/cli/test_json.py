"""`-of json` makes every command print JSON: one document, or a line for each of many."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click
import pytest

from flyte_build.cli.main import flyte as command_line
from tests.support.command import Shell
from tests.support.registries import Server
from tests.support.shop import shop as shop

PLAIN = """
import sys, time
import flyte

env = flyte.TaskEnvironment(name="plain")

@env.task
def hello(n: int = 1) -> int:
    print("out", flush=True)
    print("err", file=sys.stderr)
    return n

@env.task
def waits() -> None:
    print("started", flush=True)
    time.sleep(600)

@env.task
def asks() -> bool:
    print("started", flush=True)
    return flyte.new_condition("go").wait()
"""
COMMANDS: dict[str, list[str]] = {
    "create config": [],
    "config set": ["image.compression", "none"],
    "config get": ["image.compression"],
    "config path": [],
    "get config": [],
    "graph": ["plain.py"],
    "cache why": ["plain.py"],
    "bundle ls": ["plain.py"],
    "run": ["plain.py", "hello", "--n", "2"],
    "get run": [],
    "get action": ["RUN"],
    "get io": ["RUN"],
    "get code": ["RUN", "-o", "code"],
    "get logs": ["RUN"],
    "abort action": ["WAITING", "a0"],
    "abort run": ["WAITING"],
    "signal condition": ["ASKING", "go", "yes"],
    "rerun": ["RUN"],
    "lock": ["tasks.py"],
    "build": ["tasks.py"],
    "get image": [],
    "image inspect": ["IMAGE"],
    "deploy": ["--version", "v1", "plain.py"],
    "diff": ["plain:v1", "plain:v1"],
    "doctor": [],
    "get task": [],
    "get deployment": [],
    "cache warm": ["plain.py"],
    "cache push": ["plain.py"],
    "cache pull": ["plain.py"],
    "cache verify": [],
    "cache stats": [],
    "cache rm": ["KEY"],
    "cache gc": [],
    "registry login": ["HOST", "--username", "ann", "--password-stdin"],
    "registry logout": ["HOST"],
    "delete deployment": ["-y", "plain"],
    "delete local-cache": [],
}
"""All commands with arguments, in an order in which each finds what it needs."""


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the names of all commands below one, without groups."""
    if not isinstance(command, click.Group):
        yield " ".join(path)
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        if (found := command.get_command(context, name)) is not None:
            yield from leaves(found, (*path, name))


def test_every_command_prints_json(shop: Shell, registry: Server) -> None:
    """Every command succeeds, and prints nothing but JSON on standard output."""
    assert set(COMMANDS) == set(leaves(command_line))
    (shop.project / "plain.py").write_text(PLAIN)
    known = {"HOST": registry.host}
    for name, arguments in COMMANDS.items():
        task = {"WAITING": "waits", "ASKING": "asks"}.get(next(iter(arguments), ""), "")
        if task:
            waiting = shop.start("run", "plain.py", task)
            assert waiting.stdout and waiting.stdout.readline() == "started\n"
            known[arguments[0]] = shop.last_run()["name"]
        while task == "asks" and len(shop.json("get", "action", known["ASKING"])) < 2:
            assert waiting.poll() is None
        words = [*name.split(), *(known.get(word, word) for word in arguments)]
        done = shop("-of", "json", *words, stdin="secret\n")
        documents: list[Any]
        if name == "get logs":
            documents = [json.loads(line) for line in done.stdout.splitlines()]
            assert [(each["stream"], each["line"]) for each in documents] == [
                ("stdout", "out"),
                ("stderr", "err"),
            ]
            assert all(set(each) == {"time", "stream", "action", "line"} for each in documents)
        else:
            documents = [json.loads(done.stdout)]
        if name == "run":
            known["RUN"] = documents[0]["run"]
        if name == "build":
            known["IMAGE"] = documents[0]["images"][0]["digest"]
        if name == "graph":
            known["KEY"] = documents[0]["nodes"][0]["key"]
        if task:
            waiting.communicate(timeout=30)


def test_an_error_is_json_too(flyte: Shell) -> None:
    """An error is JSON on standard output, in the place of the result."""
    for words in (["get", "run", "none"], ["run", "gone.py", "x"], ["nothing"], ["run", "--bad"]):
        done = flyte("-of", "json", *words, exit_code=None)
        error = json.loads(done.stdout)["error"]
        assert error["exit_code"] == done.returncode != 0 and error["message"]


@pytest.mark.parametrize("format", ["json", "json-raw"])
def test_both_forms_hold_the_same(flyte: Shell, format: str) -> None:
    flyte("run", "tasks.py", "hello")
    done = flyte("-of", format, "get", "run").stdout
    assert len(json.loads(done)) == 1 and (done.count("\n") == 1) == (format == "json-raw")
