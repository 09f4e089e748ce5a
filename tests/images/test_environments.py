"""Local environments: an image's packages for the `process` engine, created once.

They are found again, and collected.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flyte_build.images.environments import venv
from flyte_build.images.layers import runtime
from flyte_build.images.platforms import PYTHON
from tests.images.test_wheel_layers import ARM, elf
from tests.support.bases import MadeWheel
from tests.support.caches import opened
from tests.support.command import FLYTE, Shell, sleepers, states, wait_for_no_sleepers
from tests.support.shop import LINKS, declare, shop

__all__ = ["shop"]  # A fixture.
OTHER = "(3, 12)" if PYTHON != "3.12" else "(3, 11)"


def environments(shop: Shell) -> list[Path]:
    return sorted((shop.home / "cache" / "v1" / "environments").iterdir())


def node(shop: Shell, *command: str, exit_code: int = 0) -> dict[str, str]:
    """Return the environment's node, as reported by a command."""
    (found,) = [
        each
        for each in shop.json(*command, exit_code=exit_code)["nodes"]
        if each["kind"] == "environment"
    ]
    assert isinstance(found, dict)
    return found


def task(
    shop: Shell,
    body: str,
    steps: str = '.with_pip_packages("beta", extra_args=LINKS)',
    more: str = "",
) -> None:
    """Write a task `main` with this body, in an image of these steps."""
    (shop.project / "tasks.py").write_text(f"""
import flyte, os, subprocess, sys
LINKS = {LINKS!r}
env = flyte.TaskEnvironment(name="t", image=flyte.Image.from_debian_base(){steps}{more})

@env.task
def main() -> {body}
""")


def test_a_task_has_the_packages_of_its_image_and_no_others(shop: Shell) -> None:
    """A task only has its image's packages, and `import flyte`; its commands come first.

    Packages of the calling interpreter and of PYTHONPATH are not there.
    """
    stray = shop.home.parent / "stray"
    stray.mkdir()
    (stray / "stray.py").write_text("")
    MadeWheel(
        "tool",
        "1.0",
        {"tool.py": b"def main(): print('tool ran')\n"},
        scripts={"tool": "tool:main"},
    ).write(shop.project / "wheels")
    body = """list[str]:
    import beta, importlib.util
    names = ["click", "stray", "flyte_build", "flyte"]
    ran = subprocess.run(["tool"], capture_output=True, text=True).stdout.strip()
    inner = subprocess.run(["python", "-c", "import beta; print(beta.VERSION)"], capture_output=True, text=True).stdout.strip()
    return [beta.VERSION, ran, inner, *(name for name in names if name in sys.modules or importlib.util.find_spec(name))]
"""
    task(shop, body, '.with_pip_packages("beta", "tool", extra_args=LINKS)')
    done = shop.json("run", "tasks.py", "main", env={"PYTHONPATH": str(stray)})
    assert done["outputs"]["o0"] == ["2.0", "tool ran", "2.0", "flyte_build", "flyte"]
    assert states(done)["environment"] == "made"


def test_the_images_variables_are_below_the_tasks_own(shop: Shell) -> None:
    """Variables of the image override inherited ones, and the task's own override both."""
    body = 'list[str]:\n    return [os.environ.get(name, "-") for name in ("A", "B", "C", "D")]\n'
    steps = '.with_env_vars({"A": "image", "B": "image", "C": "image"})'
    task(shop, body, steps, ', env_vars={"B": "task"}')
    done = shop.json("run", "-e", "C=given", "tasks.py", "main", env={"A": "mine", "D": "mine"})
    assert done["outputs"]["o0"] == ["image", "task", "given", "mine"]


def test_a_second_run_finds_it_and_reads_no_lock(shop: Shell) -> None:
    """A second run finds the environment without flyte.lock, network and uv.

    It loads nothing that parses or resolves.
    """
    assert states(shop.json("run", "tasks.py", "versions"))["environment"] == "made"
    shutil.rmtree(shop.project / "wheels")
    env = {"UV_OFFLINE": "1", "UV_CACHE_DIR": "/nowhere", "PYTHONPROFILEIMPORTTIME": "1"}
    command = [FLYTE, "-of", "json", "run", "tasks.py", "versions"]
    done = subprocess.run(
        command,
        cwd=shop.project,
        env={**shop.environment, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout)
    assert states(result)["environment"] == "cached" and result["outputs"]["o0"]["alpha"] == "2.0"
    loaded = {
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert "flyte_build.images.environments.node" in loaded
    unwanted = {
        "tomllib",
        "tomlkit",
        "packaging",
        "uv",
        "flyte_build.images.lock.project_lock",
        "flyte_build.images.lock.lockfile",
    }
    assert not loaded & unwanted


def test_one_set_of_wheels_is_one_environment(shop: Shell) -> None:
    """Equal sets of wheels share one environment, whatever declares them."""
    declare(
        shop,
        '.with_pip_packages("beta", "alpha", extra_args=LINKS).with_env_vars({"A": "b"})',
        "other.py",
    )
    (shop.project / "requirements.txt").write_text(
        f"{LINKS.replace(' --', chr(10) + '--')}\nalpha\n"
    )
    declare(shop, '.with_requirements("requirements.txt")', "third.py")
    for file in ("tasks.py", "other.py", "third.py"):
        shop("run", file, "versions")
    assert len(environments(shop)) == 1
    (shop.project / "requirements.txt").write_text(
        (shop.project / "requirements.txt").read_text() + "# a comment\n"
    )
    shop("lock")
    assert states(shop.json("run", "third.py", "versions"))["environment"] == "cached"
    assert len(environments(shop)) == 1


def test_a_change_says_which_packages_it_is_about(shop: Shell) -> None:
    """The reason for a rebuild names packages that were added, removed or changed.

    Before they are locked, the reason is that they are not.
    """
    shop("run", "tasks.py", "versions")
    assert node(shop, "cache", "why", "tasks.py")["state"] == "cached"
    MadeWheel("gamma", "1.0").write(shop.project / "wheels")
    declare(shop, '.with_pip_packages("beta<2", "gamma", extra_args=LINKS)')
    assert "not locked" in node(shop, "cache", "why", "tasks.py")["why"]
    shop("lock")
    found = node(shop, "cache", "why", "tasks.py")
    assert (found["state"], found["why"]) == (
        "missing",
        "beta 2.0 -> 1.0, +gamma==1.0, -alpha==2.0",
    )
    assert node(shop, "cache", "warm", "--check", "tasks.py", exit_code=3)["state"] == "missing"
    assert node(shop, "cache", "warm", "tasks.py")["state"] == "made"
    graph = shop.json("graph", "tasks.py")
    assert [*filter(lambda pair: pair[1].startswith("environment"), graph["edges"])] == [
        ["discovery", "environment tasks"]
    ]


def test_a_broken_environment_is_made_again(shop: Shell) -> None:
    """A broken environment is created again.

    Its interpreter, a package, its marker or half of it is gone, or a file was added.
    """
    shop("run", "tasks.py", "versions")
    (folder,) = environments(shop)
    packages = folder / "venv" / "lib" / f"python{PYTHON}" / "site-packages"

    def uninstall() -> None:
        (packages / "beta.py").unlink()

    def install() -> None:
        (packages / "stray.py").write_text("")

    def lose_interpreter() -> None:
        (folder / "venv" / "bin" / "python").unlink()

    for damage in (
        uninstall,
        install,
        lose_interpreter,
        (folder / "complete").unlink,
        lambda: shutil.rmtree(folder / "venv"),
    ):
        damage()
        done = shop.json("run", "--locked", "tasks.py", "versions")
        assert (
            done["outputs"]["o0"] == {"alpha": "2.0", "beta": "2.0"}
            and states(done)["environment"] == "made"
        )
        assert states(shop.json("run", "tasks.py", "versions"))["environment"] == "cached"
    assert len(environments(shop)) == 1


def test_what_was_changed_inside_is_found_by_verify(shop: Shell) -> None:
    """`verify` compares every byte, and a changed environment is created again when needed."""
    shop("run", "tasks.py", "versions")
    (folder,) = environments(shop)
    file = folder / "venv" / "lib" / f"python{PYTHON}" / "site-packages" / "beta.py"
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data.replace(b"2.0", b"6.6"))
    shutil.copystat(folder / "complete", file)
    (complete := folder / "complete").write_text(
        json.dumps({**json.loads(complete.read_text()), "packages": _state(file.parent)})
    )
    (bad,) = shop.json("cache", "verify")["bad"]
    assert bad["digest"] == f"sha256:{folder.name}" and "beta.py" in bad["what"] and bad["repaired"]
    assert states(shop.json("run", "tasks.py", "versions"))["environment"] == "made"


def test_an_unfinished_one_is_no_damage(shop: Shell) -> None:
    """An unfinished environment is not damage: another process may be creating it.

    It is finished by the next run.
    """
    shop("run", "tasks.py", "versions")
    (folder,) = environments(shop)
    (folder / "complete").unlink()
    assert shop.json("cache", "verify")["bad"] == [] and folder.exists()
    assert states(shop.json("run", "tasks.py", "versions"))["environment"] == "made"


def test_after_a_restart_the_files_are_looked_at(shop: Shell) -> None:
    """After a reboot the files are checked, since a crash may have emptied them.

    An intact environment stays in use.
    """
    shop("run", "tasks.py", "versions")
    (folder,) = environments(shop)
    complete = folder / "complete"

    def restart() -> None:
        complete.write_text(json.dumps({**json.loads(complete.read_text()), "boot": 0.0}))

    restart()
    assert states(shop.json("run", "tasks.py", "versions"))["environment"] == "cached"
    assert json.loads(complete.read_text())["boot"] > 0
    restart()
    os.truncate(folder / "venv" / "lib" / f"python{PYTHON}" / "site-packages" / "beta.py", 0)
    shutil.rmtree(shop.home.parent / "uv")  # Its files are the same ones.
    assert states(shop.json("run", "tasks.py", "versions"))["environment"] == "made"


def _state(packages: Path) -> list[int]:
    return [packages.stat().st_ino, packages.stat().st_mtime_ns]


@pytest.mark.slow
def test_two_commands_make_one(shop: Shell) -> None:
    """Of several commands that need an environment, one creates it, and the others wait."""
    shop("lock")
    started = [shop.start("run", "tasks.py", "versions") for _ in range(4)]
    for each in started:
        out, errors = each.communicate(timeout=100)
        assert each.returncode == 0 and '"beta": "2.0"' in out, errors
    assert len(environments(shop)) == 1


def test_a_wheel_that_is_another_than_the_locked_one_is_refused(shop: Shell) -> None:
    """A wheel whose hash is not the locked one is refused, and no environment is left."""
    shop("lock")
    MadeWheel("beta", "2.0", {"beta.py": b"EVIL = True\n"}).write(shop.project / "wheels")
    told = shop("run", "tasks.py", "versions", exit_code=3).stderr
    assert "is not the locked one" in told and "--upgrade" in told
    shop("run", "tasks.py", "versions", exit_code=3)
    shop("lock", "--upgrade", "beta")
    shop("run", "tasks.py", "versions")


@pytest.mark.parametrize(
    ("wheel", "told"),
    [
        (
            MadeWheel("beta", "3.0", {"beta.py": b"x = 1"}, record={"beta.py": "A" * 43}),
            "beta.py does not match its RECORD",
        ),
        (
            MadeWheel("beta", "3.0", {"beta/_x.so": elf(ARM), "beta/__init__.py": b""}),
            "beta/_x.so is machine code for aarch64",
        ),
        (
            MadeWheel("beta", "3.0", {"beta-3.0.data/scripts/tool": elf(ARM)}),
            "tool is machine code for aarch64",
        ),
    ],
    ids=["record", "library", "program"],
)
@pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="what is foreign here depends on the machine"
)
def test_a_wheel_that_a_layer_would_refuse_is_refused(
    shop: Shell, wheel: MadeWheel, told: str
) -> None:
    """A wheel that a layer would refuse is refused with the same error."""
    wheel.write(shop.project / "wheels")
    for _ in range(2):
        errors = shop("run", "tasks.py", "versions", exit_code=3).stderr
        assert "Cannot use the wheel beta-3.0-py3-none-any.whl" in errors and told in errors
    assert not any((each / "complete").exists() for each in environments(shop))


def test_it_is_collected_when_no_run_uses_it(shop: Shell) -> None:
    """An environment is collected unless a task runs in it, and `--dry-run` lists it."""
    task(shop, "None:\n    print('started', flush=True)\n    subprocess.run(['sleep', '987654'])\n")
    assert shop.json("cache", "stats")["environments"] == 0
    running = shop.start("run", "tasks.py", "main")
    try:
        assert running.stdout is not None and running.stdout.readline() == "started\n"
        assert shop.json("cache", "stats")["environments"] == 1
        removed = shop.json("cache", "gc", "--keep", "0s")["removed"]
        assert (
            not any("environment" in each["what"] for each in removed)
            and len(environments(shop)) == 1
        )
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
    for options in (["--dry-run"], []):
        assert len(environments(shop)) == 1
        removed = shop.json("cache", "gc", "--keep", "0s", *options)["removed"]
        assert [each["what"] for each in removed].count("local environments") == 1
    assert environments(shop) == []
    wait_for_no_sleepers()


def test_a_used_one_outlives_a_collection_and_a_check(shop: Shell) -> None:
    """A recently used environment outlives a collection and a check; its key can be removed."""
    made = shop.json("run", "tasks.py", "versions")
    (found,) = [each for each in made["prepared"] if each["kind"] == "environment"]
    shop("cache", "gc")
    assert shop.json("cache", "verify")["bad"] == []
    assert states(shop.json("run", "tasks.py", "versions"))["environment"] == "cached"
    shop("cache", "rm", found["key"])
    assert states(shop.json("run", "tasks.py", "versions"))["environment"] == "made"
    assert len(environments(shop)) == 1 and environments(shop)[0].name == found[
        "digest"
    ].removeprefix("sha256:")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing_running(shop: Shell, number: signal.Signals) -> None:
    """An interrupted command ends its installer, too, whichever process gets the signal."""
    shop("lock")
    os.mkfifo(shop.project / "uv.toml")  # An installer that reads from a pipe waits for ever.
    running = shop.start("run", "tasks.py", "versions")
    try:
        deadline = time.monotonic() + 30
        while not (
            installers := [
                each
                for each in psutil.process_iter(["cmdline", "ppid"])
                if _installs(each, running.pid)
            ]
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(number)
        running.communicate(timeout=20)
        assert running.returncode == (130 if number == signal.SIGINT else 5)
        assert psutil.wait_procs(installers, timeout=10)[1] == []
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_interrupted_while_it_fetches_ends(
    shop: Shell, number: signal.Signals
) -> None:
    """A command that is interrupted while it waits for a wheel ends.

    No incomplete environment is taken for a complete one.
    """
    shop("lock")
    for path in (shop.project / "wheels").iterdir():
        path.unlink()
        os.mkfifo(path)
    running = shop.start("run", "tasks.py", "versions")
    try:
        deadline = time.monotonic() + 30
        while not list(shop.home.glob("cache/v1/blobs/sha256/.writing-*")):
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.01)
        running.send_signal(number)
        running.communicate(timeout=20)
        assert running.returncode == (130 if number == signal.SIGINT else 5)
        assert not list(shop.home.glob("cache/v1/environments/*/complete"))
    finally:
        running.kill()
        running.communicate()


def _installs(process: psutil.Process, command: int) -> bool:
    return process.info["ppid"] == command and "sync" in (process.info["cmdline"] or ())


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (
            'flyte.Image.from_debian_base().with_apt_packages("curl")',
            "It runs apt-get install curl",
        ),
        ('flyte.Image.from_debian_base().with_commands(["make"])', "It runs make"),
        (
            'flyte.Image.from_debian_base().with_source_file("tasks.py")',
            "It copies files into the image",
        ),
        (
            f"flyte.Image.from_debian_base({OTHER})",
            f"It has Python {OTHER[1:-1].replace(', ', '.')}, but flyte runs with {PYTHON}",
        ),
        (
            'flyte.Image.from_debian_base(platform="linux/%s")'
            % ("arm64" if os.uname().machine == "x86_64" else "amd64"),
            "this machine is",
        ),
        ('flyte.Image.from_dockerfile("Dockerfile")', "It runs the Dockerfile Dockerfile"),
        ('flyte.Image.from_base("a/b:1").with_env_vars({"A": "b"})', "is only in its container"),
        ('"a/b:1"', "is only in its container"),
    ],
)
def test_an_image_that_is_only_in_containers_says_why(shop: Shell, image: str, told: str) -> None:
    """An image that is only available in containers has a reason with a hint.

    Nothing is resolved for it.
    """
    (shop.project / "tasks.py").write_text(
        f"import flyte\nenv = flyte.TaskEnvironment('t', image={image})\n@env.task\ndef main() ->"
        " int:\n    return 1\n"
    )
    error = shop("run", "--engine", "process", "tasks.py", "main", exit_code=3).stderr
    assert told in error and "--engine docker" in error


def test_the_worker_needs_the_standard_library_alone(shop: Shell) -> None:
    """The worker runs without any package, and still ends the processes that a task left behind."""
    body = """list[str]:
    import asyncio, flyte.errors
    subprocess.Popen(["sleep", "987654"], start_new_session=True)
    own = {name.partition(".")[0] for name in sys.modules} - {*sys.stdlib_module_names, "sitecustomize"}
    return sorted(name for name in own if not name.startswith("_"))
"""
    task(shop, body, '.with_env_vars({"A": "b"})')
    assert shop.json("run", "tasks.py", "main")["outputs"]["o0"] == [
        "flyte",
        "flyte_build",
        "tasks",
    ]
    wait_for_no_sleepers()
    assert sleepers() == []


def test_every_module_of_the_runtime_that_a_task_can_use_is_there(
    shop: Shell, tmp_path: Path
) -> None:
    """All modules of the runtime that a task can use are in it.

    Nothing else is in the environment, and Python is isolated.
    """
    shop("run", "tasks.py", "versions")
    (folder,) = environments(shop)
    with opened(shop.home / "cache", lambda sentence: None) as cache:
        place = runtime.folder(cache)
    code = f"""
import sys
sys.path.insert(0, {place!r})
from flyte_build._alias import install_alias
install_alias()
import flyte, flyte.errors
[getattr(flyte, name) for name in ("Image", "TaskEnvironment", "Resources", "Secret", "Cache", "RetryStrategy", "Timeout")]
import flyte_build.runner.worker.main, flyte_build.runner.worker.execute, flyte_build.values.annotations
known = {{*sys.stdlib_module_names, "sitecustomize"}}
print(sorted(name for name in {{each.partition(".")[0] for each in sys.modules}} - known if name[0] != "_"))
"""
    done = subprocess.run(
        [venv.python_of(str(folder)), "-I", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.strip() == "['flyte', 'flyte_build']"


def test_the_interpreter_at_hand_stays_where_no_image_is_declared(shop: Shell) -> None:
    """Without an image, `auto` is the current interpreter: nothing is locked or created."""
    (shop.project / "tasks.py").write_text(
        "import flyte, sys\nenv = flyte.TaskEnvironment('t')\n@env.task\ndef main() -> str:\n   "
        " return sys.executable\n"
    )
    done = shop.json("run", "tasks.py", "main")
    assert done["outputs"]["o0"] == sys.executable and "environment" not in states(done)
    assert not (shop.project / "flyte.lock").exists()


def test_secrets_in_a_process_are_variables(shop: Shell, tmp_path: Path) -> None:
    """Secrets are variables in a process; those in files are reported to be unavailable.

    A command with a missing secret ends before the run.
    """
    (shop.project / "plain.py").write_text(
        'import os\nimport flyte\nnames = [flyte.Secret("api-key", as_env_var="MINE"),'
        ' flyte.Secret("key", group="db", mount="/etc/secrets"), "other"]\nenv ='
        ' flyte.TaskEnvironment(name="plain", secrets=names)\n@env.task\ndef main() -> list[str]:\n'
        '    return [os.environ["MINE"], os.environ["OTHER"],'
        ' str(os.path.exists("/etc/secrets/key"))]\n'
    )
    values = {"API_KEY": "se-same-one", "OTHER": "se-same-two", "DB_KEY": "se-same-three"}
    done = shop("run", "plain.py", "main", env=values)
    assert json.loads(done.stdout) == ["se-same-one", "se-same-two", "False"]
    assert (
        "/etc/secrets/key: secrets in files are only available in containers" in done.stderr
        and "engine ignores:" not in done.stderr
    )
    kept = [
        path for path in (tmp_path / "home").rglob("*") if path.is_file() and path.name != "log"
    ]
    assert kept and not any(
        b"se-same" in path.read_bytes() for path in kept if path.name != "result.json"
    )
    runs = shop.json("get", "run")
    missing = shop("run", "plain.py", "main", exit_code=3, env={"OTHER": "x", "DB_KEY": "y"})
    assert "The secret 'api-key' is not set" in missing.stderr and "MINE" in missing.stderr
    assert shop.json("get", "run") == runs


def test_a_rerun_as_then_has_its_packages(shop: Shell) -> None:
    """`rerun --as-then` runs the stored code in its image's environment, without the file."""
    first = shop.json("run", "tasks.py", "versions")
    (shop.project / "tasks.py").unlink()
    again = shop.json("rerun", "--as-then", first["run"])
    assert again["outputs"] == first["outputs"] and "alpha" in again["outputs"]["o0"]
