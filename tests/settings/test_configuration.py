"""Configuration: files, variables and options, their precedence, and errors about them."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from flyte_build.bundler.budget import Budget
from flyte_build.cli.main import flyte as command
from flyte_build.settings.table import MAX_BYTES, MAX_FILES, MAX_SCAN_TIME, SETTINGS
from tests.support.command import Shell


def value(flyte: Shell, key: str, *options: str, env: dict[str, str] | None = None) -> list[Any]:
    """Return a setting's value and its origin."""
    found = flyte.json(*options, "config", "get", key, env=env)
    return [found["value"], found["from"]]


def test_each_source_overrides_the_one_before_it(flyte: Shell) -> None:
    """Each source overrides the one before it, from Flyte 2's file to the option.

    They are Flyte 2's file, the user's, flyte.toml, pyproject.toml, the variable and the option.
    """
    sources: list[tuple[Path, str]] = [
        (flyte.project / ".flyte" / "config.yaml", "task:\n  project: {}\n"),
        (flyte.home / "config.toml", '[task]\nproject = "{}"\n'),
        (flyte.project / "flyte.toml", 'task.project = "{}"\n'),
        (
            flyte.project / "pyproject.toml",
            '[project]\nname = "x"\n[tool.flyte]\ntask = {{project = "{}"}}\n',
        ),
    ]
    assert value(flyte, "task.project") == ["default", "default"]
    for number, (path, text) in enumerate(sources):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(f"p{number}"))
        assert value(flyte, "task.project") == [f"p{number}", str(path)]
    assert value(flyte, "task.project", env={"FLYTE_TASK_PROJECT": "v"}) == [
        "v",
        "FLYTE_TASK_PROJECT",
    ]
    (flyte.project / "shows.py").write_text(
        "import flyte, os\nenv = flyte.TaskEnvironment(name='e')\n@env.task\ndef hi() -> int:\n   "
        " return 1\n"
    )
    projects = []
    for options, env in (
        ([], {}),
        ([], {"FLYTE_TASK_PROJECT": "v"}),
        (["-p", "option"], {"FLYTE_TASK_PROJECT": "v"}),
    ):
        name = flyte.json("run", *options, "shows.py", "hi", env=env)["run"]
        projects.append(history_project(flyte, name))
    assert projects == ["p3", "v", "option"]


def history_project(flyte: Shell, name: str) -> str:
    """Return the project under which a run is recorded."""
    import sqlite3

    with sqlite3.connect(next(flyte.home.glob("data/v*/*.sqlite"))) as database:
        (project,) = database.execute("SELECT project FROM runs WHERE name=?", (name,)).fetchone()
    database.close()
    return str(project)


def test_a_file_that_is_named_is_the_only_one(flyte: Shell) -> None:
    """`-c FILE` replaces all other files, and must exist; variables still override it."""
    (flyte.project / "flyte.toml").write_text('task.project = "a"\ntask.domain = "a"\n')
    (flyte.project / "my.toml").write_text('task.project = "b"\n')
    assert value(flyte, "task.project", "-c", "my.toml") == ["b", "my.toml"]
    assert value(flyte, "task.domain", "-c", "my.toml") == ["development", "default"]
    assert value(flyte, "task.project", "-c", "my.toml", env={"FLYTE_TASK_PROJECT": "v"})[0] == "v"
    assert (
        "There is no configuration file gone.toml"
        in flyte("-c", "gone.toml", "config", exit_code=2).stderr
    )
    assert (
        "There is no configuration file"
        in flyte("-c", "gone.toml", "run", "tasks.py", "hello", exit_code=2).stderr
    )


def test_settings_are_acted_on(flyte: Shell) -> None:
    """Settings affect the copy style, the engine, and the kind and size of bundled files."""
    (flyte.project / "more.py").write_text("")
    (flyte.project / "flyte.toml").write_text('[run]\ncopy_style = "all"\n')
    listed = flyte.json("bundle", "ls", "tasks.py")
    assert "more.py" in [entry["path"] for entry in listed["files"]]
    assert flyte.json("cache", "why", "tasks.py")["nodes"][1]["name"] == "all"
    refused = flyte(
        "run", "tasks.py", "hello", exit_code=3, env={"FLYTE_BUNDLE_MAX_FILES": "2"}
    ).stderr
    assert "more than 2 files" in refused and "bundle.max_files" in refused
    assert (
        "more than"
        in flyte(
            "run", "tasks.py", "hello", exit_code=3, env={"FLYTE_BUNDLE_MAX_SIZE": "1 kB"}
        ).stderr
    )
    assert (
        "seconds"
        in flyte(
            "run", "tasks.py", "hello", exit_code=3, env={"FLYTE_BUNDLE_MAX_SCAN_TIME": "0s"}
        ).stderr
    )
    (flyte.project / ".env").write_text("A=1")
    assert ".env" in flyte("run", "tasks.py", "hello", exit_code=3).stderr
    flyte("run", "tasks.py", "hello", env={"FLYTE_BUNDLE_ALLOW_SECRETS": "x.pem, .env"})
    flyte("run", "tasks.py", "hello", env={"FLYTE_BUNDLE_ALLOW_SECRETS": '["/.env"]'})
    local = flyte.json("run", "tasks.py", "hello", env={"FLYTE_RUN_ENGINE": "local"})
    assert [node["kind"] for node in local["prepared"]] == ["discovery"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[cache]\n\nkep = "1d"\n', 3, ["no setting 'cache.kep'", "cache.keep"]),
        ("[cach]\n", 1, ["no setting 'cach'"]),
        ('[cash]\nkeep = "1d"\n', 2, ["no setting 'cash.keep'", "cache.keep"]),
        ("# keep\n[task]\nproject = 5\n", 3, ["task.project cannot be 5", "a string"]),
        ('cache.keep = "ever"\n', 1, ['cache.keep cannot be "ever"', "14 days"]),
        ("cache.keep = -1\n", 1, ["cache.keep cannot be -1"]),
        ("cache.keep = true\n", 1, ["cache.keep cannot be true"]),
        ('[cache]\nauto_gc = "yes"\n', 2, ['cache.auto_gc cannot be "yes"', "true or false"]),
        (
            '[bundle]\nmax_files = 1\nallow_secrets = [\n  "a",\n  1,\n]\n',
            3,
            ["bundle.allow_secrets cannot be"],
        ),
        (
            'run = {engine = "warp"}\n',
            1,
            ['run.engine cannot be "warp"', "auto, process, docker, local"],
        ),
        ("cache = 5\n", 1, ["no setting 'cache'"]),
        ('home = "/x"\n', 1, ["home cannot be set in a file", "FLYTE_HOME"]),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_line(
    flyte: Shell, text: str, line: int, said: list[str]
) -> None:
    """A mistake in a file is reported with its line, by any command that reads the file.

    For an unknown key the nearest known one is given, for a wrong type the expected one.
    """
    (flyte.project / "flyte.toml").write_text(text)
    (flyte.project / "more.toml").write_text(text)
    errors = flyte("config", exit_code=2).stderr
    assert f"flyte.toml:{line}: " in errors and all(each in errors for each in said)
    assert flyte("run", "tasks.py", "hello", exit_code=2).stderr == errors
    (flyte.project / "flyte.toml").unlink()
    (flyte.project / "pyproject.toml").write_text(
        '[project]\nname = "keep"\n\n[tool.flyte]\n'
        + text.replace("[c", "[tool.flyte.c")
        .replace("[task", "[tool.flyte.task")
        .replace("[bundle", "[tool.flyte.bundle")
    )
    assert f"pyproject.toml:{line + 4}: " in flyte("config", exit_code=2).stderr


def test_files_that_cannot_be_read_are_told(flyte: Shell) -> None:
    """Invalid TOML, YAML or UTF-8, or a directory in the place of a file, is an error."""
    file = flyte.project / "flyte.toml"
    file.write_text("[cache\n")
    assert "flyte.toml is not valid TOML" in flyte("config", exit_code=2).stderr
    assert (
        "flyte.toml is not valid TOML"
        in flyte("-c", "flyte.toml", "config", "set", "cache.keep", "1d", exit_code=2).stderr
    )
    file.write_bytes(b"\xff")
    assert "Cannot read the configuration file" in flyte("config", exit_code=2).stderr
    file.unlink()
    file.mkdir()
    assert "Cannot read the configuration file" in flyte("config", exit_code=2).stderr
    file.rmdir()
    for text, said in (
        ("a: [", "is not valid YAML"),
        ("- a\n", "is not a configuration file"),
        ("a: 1\ntask:\n  domain: 5\n", "a.yaml:3: task.domain"),
    ):
        (flyte.project / "a.yaml").write_text(text)
        assert said in flyte("-c", "a.yaml", "config", exit_code=2).stderr


def test_variables(flyte: Shell) -> None:
    """Variables are parsed; a wrong value is an error, and an unknown name gets a suggestion.

    The latter is only given if the name resembles a setting.
    """
    for text, expected in (
        ("0", False),
        ("off", False),
        ("FALSE", False),
        ("1", True),
        ("yes", True),
    ):
        assert value(flyte, "cache.auto_gc", env={"FLYTE_CACHE_AUTO_GC": text})[0] is expected
    assert value(flyte, "cache.keep", env={"FLYTE_CACHE_KEEP": "90"})[0] == "90 s"
    assert value(flyte, "cache.max_size", env={"FLYTE_CACHE_MAX_SIZE": "20G"})[0] == "20 GB"
    assert value(flyte, "home") == [str(flyte.home), "FLYTE_HOME"]
    errors = flyte("config", exit_code=2, env={"FLYTE_CACHE_KEEP": "soon"}).stderr
    assert "The variable FLYTE_CACHE_KEEP: cache.keep cannot be" in errors
    assert (
        "Did you mean FLYTE_TASK_PROJECT?" in flyte("config", env={"FLYTE_TASK_PROJET": "x"}).stderr
    )
    assert "FLYTE_CACHE_Q is not a setting" in flyte("config", env={"FLYTE_CACHE_Q": "x"}).stderr
    assert (
        flyte("config", env={"FLYTE_RUN": "r", "FLYTE_AWS_ENDPOINT": "x", "FLYTE": "x"}).stderr
        == ""
    )


def test_set_keeps_comments_and_order(flyte: Shell) -> None:
    """`config set` replaces or adds values that read back, and keeps all other bytes."""
    user = flyte.home / "config.toml"
    user.parent.mkdir(exist_ok=True)
    text = (
        '# mine\n\n[task]   # about tasks\ndomain = "d" # why\nproject   = "old"   #'
        ' because\n\n[cache]\nkeep="3d"\n'
    )
    user.write_text(text)
    os.chmod(user, 0o640)
    flyte("config", "set", "task.project", "new")
    assert (
        user.read_text() == text.replace('"old"', '"new"') and user.stat().st_mode & 0o777 == 0o640
    )
    flyte("config", "set", "--user", "cache.auto_gc", "no")
    flyte("config", "set", "run.copy_style", "all")
    flyte("config", "set", "bundle.allow_secrets", "a, b/c")
    flyte("config", "set", "bundle.max_files", "7")
    assert user.read_text().startswith(text.replace('"old"', '"new"'))
    expected = {
        "run": {"copy_style": "all"},
        "bundle": {"allow_secrets": ["a", "b/c"], "max_files": 7},
    }
    assert tomllib.loads(user.read_text()) == {
        "task": {"domain": "d", "project": "new"},
        "cache": {"keep": "3d", "auto_gc": False},
        **expected,
    }
    assert value(flyte, "bundle.allow_secrets")[0] == ["a", "b/c"]
    assert [path.name for path in flyte.home.iterdir()] == ["config.toml"]


def test_many_commands_set_at_once(flyte: Shell) -> None:
    """Concurrent `config set` commands lose no value."""
    texts = {
        "task.project": "p",
        "task.domain": "d",
        "cache.keep": "1d",
        "cache.min_free": "2 GB",
        "run.copy_style": "all",
    }
    started = [flyte.start("config", "set", key, text) for key, text in texts.items()]
    assert [(each.communicate(), each.returncode)[1] for each in started] == [0] * len(texts)
    assert {
        each["key"]: each["value"]
        for each in flyte.json("config")
        if each["from"] == str(flyte.home / "config.toml")
    } == {
        **texts,
        "cache.keep": "1 day",
    }
    assert flyte.json("config", "set", "cache.auto_gc", "no") == {
        "key": "cache.auto_gc",
        "value": False,
        "file": str(flyte.home / "config.toml"),
    }


def test_set_mends_a_wrong_value(flyte: Shell) -> None:
    """`config set` can repair a file with a wrong value."""
    (flyte.project / "flyte.toml").write_text('cache.keep = "ever" # long\n')
    flyte("config", "set", "--project", "cache.keep", "1d")
    assert (flyte.project / "flyte.toml").read_text() == 'cache.keep = "1d" # long\n'


def test_set_in_the_project(flyte: Shell) -> None:
    """`config set` in a project writes flyte.toml, or a pyproject.toml that has settings.

    The latter needs that there is no flyte.toml. A link stays a link.
    """
    pyproject = flyte.project / "pyproject.toml"
    pyproject.write_text('[project]\nname = "x"\n')
    flyte("config", "set", "--project", "task.project", "a")
    assert (flyte.project / "flyte.toml").read_text() == '[task]\nproject = "a"\n'
    os.rename(flyte.project / "flyte.toml", flyte.project / "real.toml")
    os.symlink("real.toml", flyte.project / "flyte.toml")
    flyte("config", "set", "--project", "task.project", "b")
    assert (
        os.path.islink(flyte.project / "flyte.toml")
        and (flyte.project / "real.toml").read_text() == '[task]\nproject = "b"\n'
    )
    os.unlink(flyte.project / "flyte.toml")
    pyproject.write_text(
        '[project]\nname = "x"\n\n[tool.flyte.task]\n# ours\nproject = "x"\n\n[tool.other]\ny = 1\n'
    )
    flyte("config", "set", "--project", "task.project", "c")
    flyte("config", "set", "--project", "cache.keep", "1d")
    assert tomllib.loads(pyproject.read_text())["tool"] == {
        "flyte": {"task": {"project": "c"}, "cache": {"keep": "1d"}},
        "other": {"y": 1},
    }
    assert "# ours\n" in pyproject.read_text() and not (flyte.project / "flyte.toml").exists()
    said = flyte("config", "set", "task.project", "user").stderr
    assert "The value in effect is c, from" in said


def test_set_refuses_what_makes_no_sense(flyte: Shell) -> None:
    """`config set` refuses an invalid value before it writes anything."""
    for key, text in (
        ("cache.kep", "1d"),
        ("cache.keep", "ever"),
        ("bundle.max_files", "many"),
        ("home", "/x"),
        ("image.image_refs", "{"),
    ):
        flyte("config", "set", key, text, exit_code=2)
    assert "cache.keep" in flyte("config", "get", "cache.kepe", exit_code=2).stderr
    assert not flyte.home.exists()
    (flyte.project / "my.toml").write_text("cache = 5\n")
    assert (
        "cache is not a table"
        in flyte("-c", "my.toml", "config", "set", "cache.keep", "1d", exit_code=2).stderr
    )
    (flyte.project / "my.yaml").write_text("")
    assert (
        "only read"
        in flyte("-c", "my.yaml", "config", "set", "cache.keep", "1d", exit_code=2).stderr
    )
    flyte.home.write_text("a file")
    assert (
        "Cannot write the configuration file"
        in flyte("config", "set", "cache.keep", "1d", exit_code=3).stderr
    )


def test_create_writes_a_file_that_says_nothing_yet(flyte: Shell) -> None:
    """`create config` writes every setting as a comment with its default.

    Uncommented, the file has the same effect as none.
    """
    before = flyte.json("config")
    flyte("create", "config")
    assert flyte.json("config") == before
    user = flyte.home / "config.toml"
    lines = user.read_text().splitlines(keepends=True)
    user.write_text("".join(line.removeprefix("# ") if " = " in line else line for line in lines))
    after = flyte.json("config")
    assert [(each["key"], each["value"]) for each in after] == [
        (each["key"], each["value"]) for each in before
    ]
    assert {each["key"] for each in after if each["from"] == str(user)} == {
        each.key for each in SETTINGS if each.acted_on and each.in_files
    }
    text = user.read_text()
    assert (
        "already exists" in flyte("create", "config", exit_code=2).stderr
        and user.read_text() == text
    )
    flyte("create", "config", "--project")
    assert (flyte.project / "flyte.toml").exists()


def test_a_file_of_flyte_2_is_read_for_what_concerns_us(flyte: Shell) -> None:
    """A file of Flyte 2 is read: the project's, else the repository's, else the user's.

    Its settings of a control plane are noted as unused, once.
    """
    text = "admin:\n  endpoint: dns:///x\n  insecure: true\ntask:\n  domain: {}\n  org: me\n"
    text += "image:\n  builder: local\n  image_refs:\n    a: b\n"
    (flyte.project / "config.yaml").write_text(text.format("stray"))
    assert value(flyte, "task.domain") == ["development", "default"]
    places = [flyte.home, flyte.project.parent, flyte.project]
    (flyte.project.parent / ".git").mkdir()
    (flyte.project / "setup.py").write_text("")
    for number, place in enumerate(places):
        (place / ".flyte").mkdir(parents=True)
        (place / ".flyte" / "config.yaml").write_text(text.format(f"d{number}"))
        assert value(flyte, "task.domain") == [f"d{number}", f"{place}/.flyte/config.yaml"]
    said = flyte("run", "tasks.py", "hello").stderr
    assert said.count("ignored: admin.endpoint, admin.insecure, task.org.") == 1
    assert value(flyte, "image.image_refs")[0] == {"a": "b"}


def test_config_shows_everything(flyte: Shell) -> None:
    """`config` and `get config` list each effective setting, and `config path` the files."""
    rows = [line.split("\t") for line in flyte("config").stdout.splitlines()]
    assert [row[0] for row in rows] == [each.key for each in SETTINGS if each.acted_on]
    assert ["cache.keep", "14 days", "default"] in rows
    assert flyte("get", "config").stdout == flyte("config").stdout
    assert {each["key"] for each in flyte.json("config")} == {each.key for each in SETTINGS}
    (flyte.project / "flyte.toml").write_text("")
    paths = {each["path"]: each["exists"] for each in flyte.json("config", "path")}
    assert paths[str(flyte.project / "flyte.toml")] and not paths[str(flyte.home / "config.toml")]
    assert flyte("config", "get", "cache.keep").stdout == "14 days\n"


def test_the_usual_budget_is_the_default_of_the_settings() -> None:
    """The default budget, which is written twice so that a run need not load it, is one value."""
    assert Budget() == Budget(
        files=MAX_FILES.default, bytes=MAX_BYTES.default, seconds=MAX_SCAN_TIME.default
    )


def test_keys_and_values_are_completed() -> None:
    """Keys and values are completed from the table of settings."""

    def complete(*args: str, incomplete: str) -> list[str]:
        found = ShellComplete(command, {}, "flyte", "_FLYTE_COMPLETE").get_completions(
            list(args), incomplete
        )
        return [each.value for each in found]

    assert complete("config", "get", incomplete="task.p") == ["task.project"]
    assert complete("config", "set", "run.copy_style", incomplete="") == [
        "loaded_modules",
        "all",
        "none",
    ]


def test_python_reads_the_same(flyte: Shell) -> None:
    """`flyte.init` and `flyte.init_from_config` read the same settings; arguments override them."""
    (flyte.project / "flyte.toml").write_text('task.project = "file"\n')
    (flyte.project / "mine.toml").write_text('task.project = "mine"\n')
    (flyte.project / "flyte2.yaml").write_text("task:\n  project: two\nadmin:\n  endpoint: x\n")
    code = "import flyte; flyte.{}; print(flyte.current_project(), flyte.current_domain())"
    for call, expected in (
        ("init_from_config()", "file development"),
        ("init()", "file development"),
        ('init_from_config("mine.toml")', "mine development"),
        ('init_from_config("flyte2.yaml", domain="d")', "two d"),
        ('init(project="given")', "given development"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(call)],
            cwd=flyte.project,
            env=flyte.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == expected + "\n"
        assert ("admin.endpoint" in done.stderr) == ("flyte2" in call)


def test_no_parser_is_loaded_for_nothing(flyte: Shell) -> None:
    """A run loads no parser without a configuration file, and for TOML only that of TOML."""
    (flyte.project / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=70"]\n\n[tool.ruff]\nline-length = 100\n'
    )

    def loaded() -> set[str]:
        names = ("tomllib", "tomlkit", "yaml", "difflib", "flyte_build.settings.files")
        code = (
            "import sys; from flyte_build.cli.main import run_command;"
            f" run_command({['run', 'tasks.py', '--help']}, None); "
        )
        code += f"print([name for name in {names} if name in sys.modules], file=sys.stderr)"
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=flyte.project,
            env=flyte.environment,
            capture_output=True,
            text=True,
        )
        return set(eval(done.stderr.splitlines()[-1]))

    loaded()
    assert loaded() == set()
    (flyte.project / "flyte.toml").write_text('task.project = "x"\n')
    assert loaded() == {"tomllib", "flyte_build.settings.files"}
