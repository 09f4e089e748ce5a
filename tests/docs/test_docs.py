"""The documentation: links, the command line's reference, and examples.

`python -m tests.docs.test_docs` writes `docs/cli.md` anew from the commands themselves, and the
table of settings in `docs/configuration.md`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from flyte_build.bundler.tree import Entry, Tree
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import encode, key
from flyte_build.cli.deployed_task import deployed_task
from flyte_build.cli.main import flyte
from flyte_build.cli.script import python_script
from flyte_build.settings.table import SETTINGS
from flyte_build.values.annotations import type_of
from tests.support.checkout import CHECKOUT

PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md")])
CLI = CHECKOUT / "docs" / "cli.md"
CONFIGURATION = CHECKOUT / "docs" / "configuration.md"
_TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- end -->)", re.S)
_BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)


def reference() -> str:
    """Return the text of `docs/cli.md`."""
    parts = [
        "# The command line\n\nThis page is generated from the commands (`python -m"
        " tests.docs.test_docs`), and a test compares the two.\n\nEvery command takes `-h` and"
        " `--help`. Options of `flyte` itself stand before the command: `flyte -of json get run`.\n"
    ]
    for command, path in commands():
        parts.append(_section(command, path))
    parts.append("## Completion\n\n" + " ".join((flyte.epilog or "").split()) + "\n")
    return "\n".join(parts)


def settings() -> str:
    """Return the table of settings in `docs/configuration.md`."""
    rows = [
        (
            f"`{each.key}`",
            each.kind.expected,
            f"`{json.dumps(each.kind.show(each.default))}`",
            each.text,
        )
        for each in SETTINGS
        if each.acted_on
    ]
    head = [("key", "value", "default", "meaning"), ("---",) * 4]
    return "".join(f"| {' | '.join(row)} |\n" for row in head + rows)


def commands() -> Iterator[tuple[click.Command, str]]:
    """Yield every command with the words that call it, groups before their commands."""
    waiting: list[tuple[click.Command, str]] = [(flyte, "flyte")]
    while waiting:
        command, path = waiting.pop(0)
        yield command, path
        if path == "flyte run":
            waiting[:0] = [
                (deployed_task, "flyte run deployed-task"),
                (python_script, "flyte run python-script"),
            ]
        if isinstance(command, click.Group):
            ctx = click.Context(command, info_name=path)
            inner = [
                (command.get_command(ctx, name), name)
                for name in sorted(command.list_commands(ctx))
            ]
            waiting[:0] = [(found, f"{path} {name}") for found, name in inner if found is not None]


def _section(command: click.Command, path: str) -> str:
    is_group = isinstance(command, click.Group)
    arguments = [_argument(each) for each in command.params if isinstance(each, click.Argument)]
    usage = " ".join([path, "[OPTIONS]", *(["COMMAND ..."] if is_group else arguments)])
    help = "\n\n".join(
        " ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n")
    )
    lines = [f"## `{path}`\n", f"    {usage}\n", help + "\n"]
    lines += [_option(option) for option in command.params if isinstance(option, click.Option)]
    return "\n".join(lines) + ("" if lines[-1].endswith("\n") else "\n")


def _argument(argument: click.Argument) -> str:
    name = argument.metavar or (argument.name or "").upper()
    return name if argument.required or "[" in name else f"[{name}]"


def _option(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag or option.count:
        value = ""
    elif option.metavar:
        value = " " + option.metavar
    elif isinstance(option.type, click.Choice):
        value = " " + "|".join(map(str, option.type.choices))
    else:
        value = " " + {"integer range": "NUMBER", "integer": "NUMBER"}.get(option.type.name, "TEXT")
    notes = [
        note
        for note in ("may be repeated" if option.multiple or option.count else "", _default(option))
        if note
    ]
    return f"- `{names}{value}`: {option.help}" + (f" ({'; '.join(notes)})" if notes else "")


def _default(option: click.Option) -> str:
    is_choice = (
        isinstance(option.type, click.Choice)
        and not option.multiple
        and isinstance(option.default, str)
    )
    if is_choice or option.show_default is True:
        return f"default: `{option.default}`"
    return ""


def _blocks(page: Path, language: str) -> list[str]:
    return [
        text for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language
    ]


def _anchors(page: Path) -> set[str]:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", text, re.M)
    }


def test_every_relative_link_resolves() -> None:
    """Every relative link leads to an existing file, and to a heading in it."""
    wrong = []
    for page in PAGES:
        text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.exists() or (anchor and anchor not in _anchors(file)):
                wrong.append(f"{page.relative_to(CHECKOUT)}: {target}")
    assert not wrong


def test_the_reference_is_what_the_commands_say() -> None:
    """`docs/cli.md` is up to date; `python -m tests.docs.test_docs` writes it anew."""
    assert CLI.read_text(encoding="utf-8") == reference()


def test_the_table_of_settings_is_what_the_code_says() -> None:
    """The table of settings in `docs/configuration.md` is up to date."""
    assert _TABLE.findall(CONFIGURATION.read_text(encoding="utf-8")) == [settings()]


def test_every_command_and_option_is_documented() -> None:
    """Each command, and each name of an option, is in the README or in `docs/`."""
    text = "\n".join(
        page.read_text(encoding="utf-8")
        for page in PAGES
        if page.parent.name == "docs" or page.name == "README.md"
    )
    missing = []
    for command, path in commands():
        if f"`{path}" not in text:
            missing.append(path)
        for option in command.params:
            if isinstance(option, click.Option):
                names = [*option.opts, *option.secondary_opts]
                missing += [
                    f"{path} {name}"
                    for name in names
                    if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
                ]
    assert not missing


def test_the_readme_has_two_commands() -> None:
    """The README has a command to set up and run the example, and one for the tests."""
    run, test = _blocks(CHECKOUT / "README.md", "bash")
    assert "-m venv" in run and "flyte run examples/hello.py hello --name World" in run
    assert "-m venv" in test and test.rstrip().endswith("pytest -n 2")


def test_the_readmes_script_runs(tmp_path: Path) -> None:
    """The Python file in the README works as it stands, both ways."""
    (script,) = [text for text in _blocks(CHECKOUT / "README.md", "python") if "__main__" in text]
    (tmp_path / "my_example.py").write_text(script, encoding="utf-8")
    env = {**os.environ, "FLYTE_HOME": str(tmp_path / "home")}
    flyte_command = os.path.join(os.path.dirname(sys.executable), "flyte")
    for command in (
        [sys.executable, "my_example.py"],
        [flyte_command, "run", "my_example.py", "my_task", "--name", "World"],
    ):
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        assert "Hello, World!" in done.stdout


def test_the_worked_tree_is_what_the_code_makes() -> None:
    """The tree in `docs/formats.md`, its digest, and the key of its bundle are right."""
    page = CHECKOUT / "docs" / "formats.md"
    files = {
        b"greet.py": ("f", b'print("hi")\n'),
        b"latest": ("l", b"greet.py"),
        b"run.sh": ("x", b"python greet.py\n"),
    }
    entries = [
        Entry(path, kind, len(data), data if kind == "l" else Digest.of(data).hex.encode())
        for path, (kind, data) in files.items()
    ]
    tree = Tree(entries)
    text = page.read_text(encoding="utf-8")
    assert tree.document.decode() in _blocks(page, "text")
    assert tree.digest in text
    assert key("bundle", 1, {"tree": tree.digest}) in text
    assert Tree.decode(tree.document).digest == tree.digest


def test_the_worked_encodings_are_what_the_code_makes() -> None:
    """The table of encodings in `docs/formats.md` is right."""
    values: list[Any] = [None, True, -12, "é", b"\x00", ["a", ["b"]], {"b": 1, "a": None}]
    text = (CHECKOUT / "docs" / "formats.md").read_text(encoding="utf-8")
    for value in values:
        shown = encode(value).decode("utf-8").replace("\x00", "\\x00")
        assert f"| `{value!r}` | `{shown}` |" in text


def test_the_wire_values_are_what_the_code_makes() -> None:
    """The table of wire values in `docs/formats.md` is right."""
    from datetime import UTC, date, datetime, timedelta
    from decimal import Decimal

    values: list[tuple[Any, Any]] = [
        (float, float("inf")),
        (datetime, datetime(2026, 1, 31, 12, tzinfo=UTC)),
        (date, date(2026, 1, 31)),
        (timedelta, timedelta(seconds=90)),
        (timedelta, timedelta(days=-1, microseconds=-500_000)),
        (dict[int, str], {1: "a"}),
        (Decimal, Decimal("0.10")),
        (bytes, b"hi"),
        (set[int], {3, 1}),
        (dict[tuple[int, int], str], {(1, 2): "a"}),
        (date | str, "2026-01-31"),
    ]
    text = (CHECKOUT / "docs" / "formats.md").read_text(encoding="utf-8")
    for annotation, value in values:
        assert f"`{json.dumps(type_of(annotation).dump(value))}`" in text


def test_the_ci_script_is_sound() -> None:
    """`.ci/run` is executable, and its syntax is valid."""
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, "-n", str(script)], check=True)


if __name__ == "__main__":
    CLI.write_text(reference(), encoding="utf-8")
    CONFIGURATION.write_text(
        _TABLE.sub(lambda match: settings(), CONFIGURATION.read_text(encoding="utf-8")),
        encoding="utf-8",
    )
