"""Tasks with declared images: in local environments, in containers, and deployed.

Deployed ones run without their sources.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.support.bases import MadeWheel, push_image, real_layer  # noqa: F401  # A fixture.
from tests.support.command import FLYTE, Shell
from tests.support.engines import Engine
from tests.support.registries import Server

TASKS = """
import os, subprocess, sys
import flyte

debian = flyte.Image.from_debian_base()
packages = debian.with_pip_packages("made-up", index_url="{index}").with_env_vars({{"COLOUR": "red"}})
light = flyte.TaskEnvironment(name="light", image=packages)
heavy = flyte.TaskEnvironment(
    name="heavy",
    image=packages.with_commands(["python3 -c 'import made_up; print(made_up.VALUE)' > /colour", "printf %s $COLOUR >> /colour"])
    .with_source_file("data.txt", "/etc/data.txt")
    .with_workdir("/srv"),
)
bare = flyte.TaskEnvironment(name="bare", image="{base}")
plain = flyte.TaskEnvironment(name="plain")

def describe() -> dict[str, str]:
    return {{"python": sys.executable, "colour": os.environ.get("COLOUR", "")}}

@light.task
def hello() -> dict[str, str]:
    import made_up
    return {{**describe(), "value": made_up.VALUE}}

@heavy.task
def cooked() -> dict[str, str]:
    import made_up
    with open("/colour") as colour, open("/etc/data.txt") as data:
        return {{**describe(), "value": made_up.VALUE, "file": colour.read(), "data": data.read()}}

@bare.task
def where() -> dict[str, str]:
    return describe()

@plain.task
def here() -> dict[str, str]:
    return describe()
"""


@pytest.fixture(scope="module")
def base(registry: Server, real_layer: Path) -> str:  # noqa: F811  # The fixture that is imported.
    """The reference of a base with Debian's Python."""
    name = registry.repository("runs/debian")
    push_image(name, [real_layer], media_type="application/vnd.oci.image.layer.v1.tar+gzip")
    return f"{name}:latest"


@pytest.fixture
def shell(engine: Engine, base: str, tmp_path: Path) -> Shell:
    """A project with tasks in declared images, and its own index of packages."""
    folder, index = tmp_path / "project", tmp_path / "index/made-up"
    folder.mkdir()
    index.mkdir(parents=True)
    wheel = MadeWheel("made_up", "1.0", {"made_up/__init__.py": b"VALUE = 'made up'\n"}).write(
        index
    )
    link = f'<a href="{wheel.filename}#sha256={wheel.digest.hex}">{wheel.filename}</a>'
    (index / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")
    (folder / "tasks.py").write_text(TASKS.format(index=index.parent.as_uri(), base=base))
    (folder / "data.txt").write_text("some data")
    return Shell(folder, tmp_path / "home", {"DOCKER_HOST": engine.host, "FLYTE_IMAGE_BASE": base})


COOKED = {
    "python": "/usr/bin/python3",
    "colour": "red",
    "value": "made up",
    "file": "made up\nred",
    "data": "some data",
}


def test_packages_alone_are_a_local_environment(shell: Shell) -> None:
    """An image with packages alone runs in a local environment, without fetching its base."""
    first = shell.json("run", "tasks.py", "hello", env={"FLYTE_IMAGE_BASE": "127.0.0.1:1/nowhere"})
    assert (
        first["outputs"]["o0"]["value"] == "made up" and first["outputs"]["o0"]["colour"] == "red"
    )
    assert "/environments/" in first["outputs"]["o0"]["python"]
    again = shell.json("run", "--locked", "tasks.py", "hello")
    assert {node["state"] for node in again["prepared"]} == {"cached"} and again[
        "outputs"
    ] == first["outputs"]


def test_the_same_task_runs_in_a_container_of_the_same_packages(shell: Shell) -> None:
    """With `--engine docker` a task has the same packages; a second run sends no request."""
    found = shell.json("run", "--engine", "docker", "tasks.py", "hello")["outputs"]["o0"]
    assert found == {"python": "/usr/bin/python3", "colour": "red", "value": "made up"}
    assert (
        "cached    discovery, tree, bundle, image"
        in shell("run", "--engine", "docker", "tasks.py", "hello").stderr
    )
    again = shell.json("run", "--engine", "docker", "--locked", "tasks.py", "hello")
    assert {node["state"] for node in again["prepared"]} == {"cached"} and again["counters"][
        "requests"
    ] == 0


@pytest.mark.slow
def test_what_executes_runs_in_a_container_by_itself(shell: Shell) -> None:
    """An image with commands runs in a container, as `auto` reports; their result is pinned.

    The commands have packages and variables.
    """
    done = shell("-of", "json", "run", "tasks.py", "cooked")
    assert '"file": "made up\\nred"' in done.stdout
    assert "heavy runs in a container: it runs python3 -c" in done.stderr
    assert "[[step]]" in (shell.project / "flyte.lock").read_text()
    assert [each["env"] for each in shell.json("get", "image")] == ["heavy"], (
        "a step is no environment"
    )
    again = shell.json("run", "--locked", "tasks.py", "cooked")
    assert again["outputs"]["o0"] == COOKED and {node["state"] for node in again["prepared"]} == {
        "cached"
    }


def test_a_command_that_fails_shows_its_last_words(shell: Shell) -> None:
    """A command that fails shows its last lines of output, and leaves no container."""
    tasks = shell.project / "tasks.py"
    tasks.write_text(
        tasks.read_text().replace("printf %s $COLOUR >> /colour", "echo oh dear; exit 7")
    )
    engine = Engine(shell.variables["DOCKER_HOST"])
    before = set(engine.containers("label=flyte.build"))
    errors = shell("run", "tasks.py", "cooked", exit_code=3).stderr
    assert "failed with exit code 7" in errors and "oh dear" in errors
    assert set(engine.containers("label=flyte.build")) <= before


@pytest.mark.slow
def test_a_killed_build_leaves_no_container_for_long(shell: Shell) -> None:
    """The next build removes the container of a killed one, and none of a running one."""
    engine, tasks = Engine(shell.variables["DOCKER_HOST"]), shell.project / "tasks.py"
    text = tasks.read_text()
    tasks.write_text(text.replace("printf %s $COLOUR >> /colour", "sleep 1000"))
    before = set(engine.containers("label=flyte.build"))
    build = subprocess.Popen(
        [FLYTE, "build", "tasks.py", "heavy"],
        cwd=shell.project,
        env=shell.environment,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (mine := set(engine.containers("label=flyte.build")) - before):
        assert time.monotonic() < deadline and build.poll() is None
        time.sleep(0.1)
    tasks.write_text(text.replace("printf %s $COLOUR >> /colour", "true"))
    shell("build", "tasks.py", "heavy")
    assert mine <= set(engine.containers("label=flyte.build"))
    build.kill()
    build.wait()
    tasks.write_text(text)
    shell("build", "tasks.py", "heavy")
    assert not mine & set(engine.containers("label=flyte.build"))


def test_a_process_cannot_have_what_is_in_a_container_only(shell: Shell) -> None:
    """The error about an image that `process` cannot run has the reason and a hint.

    Without an engine it names the step that needs one.
    """
    for task, why in (("cooked", "It runs python3 -c"), ("where", "is only in its container")):
        errors = shell("run", "--engine", "process", "tasks.py", task, exit_code=3).stderr
        assert why in errors and "--engine docker" in errors
    nowhere = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    assert (
        "Cannot execute a step of the image: python3 -c"
        in shell("run", "tasks.py", "cooked", exit_code=3, env=nowhere).stderr
    )


@pytest.mark.slow
def test_a_reference_is_pinned(shell: Shell, base: str, registry: Server, real_layer: Path) -> None:  # noqa: F811  # The same fixture.
    """A moved tag changes nothing, until the lock is upgraded."""
    moving = registry.repository("runs/moving")
    push_image(moving, [real_layer], media_type="application/vnd.oci.image.layer.v1.tar+gzip")
    tasks = shell.project / "tasks.py"
    tasks.write_text(tasks.read_text().replace(base, moving))
    assert shell.json("run", "tasks.py", "where")["outputs"]["o0"]["colour"] == ""
    settings = {"Env": ["PATH=/usr/bin", "COLOUR=green"]}
    push_image(
        moving,
        [real_layer],
        media_type="application/vnd.oci.image.layer.v1.tar+gzip",
        settings=settings,
    )
    assert shell.json("run", "tasks.py", "where")["outputs"]["o0"]["colour"] == ""
    shell("lock", "--upgrade", moving)
    assert shell.json("run", "tasks.py", "where")["outputs"]["o0"]["colour"] == "green"


def test_a_task_without_an_image_stays_where_it_is(shell: Shell) -> None:
    """A task without an image runs in this interpreter, or on Debian with `--engine docker`."""
    here = shell.json("run", "tasks.py", "here")["outputs"]["o0"]["python"]
    assert os.path.dirname(here) == os.path.dirname(sys.executable)
    assert not (shell.project / "flyte.lock").exists()
    assert (
        shell.json("run", "--engine", "docker", "tasks.py", "here")["outputs"]["o0"]["python"]
        == "/usr/bin/python3"
    )


@pytest.mark.slow
def test_deployed_tasks_need_no_sources(shell: Shell, registry: Server, tmp_path: Path) -> None:
    """A deployed task runs on another machine in its local environment or container."""
    shell.variables["FLYTE_REGISTRY"] = registry.repository("runs/team/project")
    deployed = shell.json("deploy", "--all", "tasks.py")["deployments"]
    kinds = {each["env"]: each["tasks"][0]["environment"]["kind"] for each in deployed}
    assert kinds == {"light": "image", "heavy": "image", "bare": "reference", "plain": "host"}
    assert {
        each["state"]
        for each in shell.json("deploy", "--locked", "--all", "tasks.py")["deployments"]
    } == {"unchanged"}

    other = Shell(
        tmp_path / "elsewhere",
        tmp_path / "other",
        {**shell.variables, "FLYTE_IMAGE_BASE": "127.0.0.1:1/nowhere"},
    )
    other.project.mkdir()
    light = other.json("run", "deployed-task", "light.hello")["outputs"]["o0"]
    assert (
        light["value"] == "made up"
        and light["colour"] == "red"
        and "/environments/" in light["python"]
    )
    contained = other.json("run", "--engine", "docker", "deployed-task", "light.hello")["outputs"][
        "o0"
    ]
    assert contained == {"python": "/usr/bin/python3", "colour": "red", "value": "made up"}
    assert other.json("run", "deployed-task", "heavy.cooked")["outputs"]["o0"] == COOKED
    assert (
        other.json("run", "deployed-task", "bare.where")["outputs"]["o0"]["python"]
        == "/usr/bin/python3"
    )
    assert (
        "has no image"
        in other("run", "--engine", "docker", "deployed-task", "plain.here", exit_code=3).stderr
    )
    other("doctor")


@pytest.mark.slow
def test_a_deployed_image_is_the_same_for_the_same_lock(
    shell: Shell, registry: Server, tmp_path: Path
) -> None:
    """A machine that has only the files and flyte.lock builds and deploys the same image."""
    shell.variables["FLYTE_REGISTRY"] = registry.repository("runs/one")
    (first,) = shell.json("deploy", "tasks.py", "light")["deployments"]
    other = Shell(
        shell.project,
        tmp_path / "other",
        {**shell.variables, "FLYTE_REGISTRY": registry.repository("runs/two")},
    )
    (second,) = other.json("deploy", "--locked", "tasks.py", "light")["deployments"]
    assert (second["digest"], second["state"]) == (first["digest"], "created")


def test_the_difference_names_packages(shell: Shell, registry: Server) -> None:
    """A diff of two deployments names packages and the image."""
    shell.variables["FLYTE_REGISTRY"] = registry.repository("runs/compared")
    shell("deploy", "--version", "v1", "tasks.py", "light")
    tasks = shell.project / "tasks.py"
    tasks.write_text(
        tasks.read_text().replace(
            "image=packages)", 'image=debian.with_env_vars({"COLOUR": "red"}))'
        )
    )
    shell("deploy", "--version", "v2", "tasks.py", "light")
    said = shell("diff", "light:v1", "light:v2").stdout
    assert "image for linux/" in said and "made-up" in said


@pytest.mark.slow
def test_a_dockerfile_is_a_base(shell: Shell) -> None:
    """A Dockerfile is built once for the files in its context; packages go on top."""
    tasks = shell.project / "tasks.py"
    text = tasks.read_text().replace("image=packages)", "image=made)")
    declared = (
        'made = flyte.Image.from_dockerfile("Dockerfile").with_pip_packages("made-up",'
        " index_url=INDEX)\nlight ="
    )
    index = (
        next(line for line in text.splitlines() if "index_url" in line)
        .partition('index_url="')[2]
        .partition('"')[0]
    )
    tasks.write_text(text.replace("light =", declared, 1).replace("INDEX", repr(index)))
    base = shell.variables["FLYTE_IMAGE_BASE"]
    (shell.project / "Dockerfile").write_text(
        f"FROM {base}\nCOPY data.txt /etc/\nENV COLOUR=blue\n"
    )
    first = shell("run", "tasks.py", "hello")
    assert "runs the Dockerfile" in first.stderr and "blue" in first.stdout
    assert {
        node["state"] for node in shell.json("run", "--locked", "tasks.py", "hello")["prepared"]
    } == {"cached"}
    (shell.project / "large.bin").write_bytes(os.urandom(3 << 20))
    for name in ("data.txt", "large.bin"):
        os.utime(shell.project / name, (1, 1))
    shell("run", "tasks.py", "hello")
    with_large = [
        shell.json("build", "tasks.py", "light")["counters"]["bytes_hashed"] for _ in range(2)
    ]
    assert with_large[1] < 1 << 20, "what has not changed is not read again"
    (shell.project / "data.txt").write_text("other data")
    assert "made      image the Dockerfile Dockerfile" in shell("run", "tasks.py", "hello").stderr
    (shell.project / ".dockerignore").write_text("*\n!data.txt\n")
    shell("run", "tasks.py", "hello")
    (shell.project / "large.bin").write_bytes(b"ignored")
    assert {
        node["state"] for node in shell.json("run", "--locked", "tasks.py", "hello")["prepared"]
    } == {"cached"}


@pytest.mark.slow
def test_packages_without_wheels_are_built_in_a_container(shell: Shell) -> None:
    """The builder `docker` builds packages without wheels; the native one refuses them by name."""
    project = (
        '[project]\nname = "only-source"\nversion = "1.0"\n[tool.setuptools]\npy-modules ='
        ' ["only_source"]\n'
    )
    files = {
        "pyproject.toml": project,
        "PKG-INFO": "Metadata-Version: 2.1\nName: only-source\nVersion: 1.0\n",
    }
    with tarfile.open(shell.project / "only_source-1.0.tar.gz", "w:gz") as archive:
        for name, text in {**files, "only_source.py": "VALUE = 'from source'\n"}.items():
            member = tarfile.TarInfo(f"only_source-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    tasks = shell.project / "built.py"
    tasks.write_text(
        "import flyte\nenv = flyte.TaskEnvironment('built',"
        " image=flyte.Image.from_debian_base().with_pip_packages('./only_source-1.0.tar.gz'))\n@env.task\ndef"
        " value() -> str:\n    import only_source\n    return only_source.VALUE\n"
    )
    assert "--builder docker" in shell("build", "built.py", "env", exit_code=3).stderr
    shell("build", "--builder", "docker", "built.py", "env")
    docker = {"FLYTE_IMAGE_BUILDER": "docker", "FLYTE_RUN_ENGINE": "docker"}
    found = shell.json("run", "built.py", "value", env=docker)
    assert found["outputs"] == {"o0": "from source"}
    assert {node["state"] for node in found["prepared"] if node["kind"] == "image"} == {"cached"}


PACKAGE = {
    "setup.py": (
        "import os\nfrom setuptools import setup\nsetup(name='local', version='1.0',"
        " packages=['local'], package_data={'local': ['*', '.*']}, license='none')\n"
    ),
    "local/__init__.py": "VALUE = 'from a directory'\n",
    "local/.env": "TOKEN=x\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("asked", [".", "-r", "url"])
def test_folders_are_installed_in_a_container(shell: Shell, asked: str) -> None:
    """A local directory is installed in a container from a copy without secrets.

    The directory stays unchanged, the layer has no path of this machine, and a change gives another
    image.
    """
    folder = shell.project / "libs/pkg"
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (shell.project / "asked.txt").write_text("-e ./libs/pkg\n")
    step = {
        "-r": ".with_requirements('asked.txt')",
        "url": f".with_pip_packages('local @ {folder.as_uri()}')",
    }
    step["."] = ".with_pip_packages('./libs/pkg', extra_args='--quiet')"
    (shell.project / "built.py").write_text(
        "import flyte\nenv = flyte.TaskEnvironment('built',"
        f" image=flyte.Image.from_debian_base(){step[asked]})\n@env.task\ndef value() -> str:\n   "
        " import local\n    return local.VALUE\n"
    )
    shell.variables |= {"FLYTE_IMAGE_BUILDER": "docker"}
    done = shell("run", "built.py", "value")
    assert (
        done.stdout == "from a directory\n"
        and "built runs in a container: it runs uv pip install" in done.stderr
    )
    assert sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    ) == sorted(PACKAGE)
    (image,) = shell.json("build", "built.py", "env")["images"]
    assert [layer["state"] for layer in image["layers"]] == ["base", "cached"]
    blob = next((shell.home / "cache").rglob(image["layers"][1]["digest"].partition(":")[2]))
    names, texts = [], b""
    with tarfile.open(blob) as layer:
        for member in layer:
            names.append(member.name)
            texts += layer.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]  # It is a file.
    assert "usr/local/lib/python3.11/dist-packages/local/__init__.py" in names
    assert not [
        name
        for name in names
        if ".env" in name or name.startswith((".flyte", "opt", str(shell.project).strip("/")))
    ]
    assert str(shell.project).encode() not in texts
    (folder / "local/__init__.py").write_text("VALUE = 'changed'\n")
    assert shell.json("run", "built.py", "value")["outputs"] == {"o0": "changed"}
    shell("lock", "--check", "built.py")
    shell("deploy", "--version", "v1", "built.py", "env")
    del shell.variables["FLYTE_IMAGE_BUILDER"]
    assert shell("run", "deployed-task", "built.value").stdout == "changed\n"


@pytest.mark.slow
def test_what_a_build_pins_is_complete(shell: Shell) -> None:
    """`flyte lock --check` is satisfied after a build; `FLYTE_LOCKED` keeps builds from pinning."""
    refused = shell("build", "tasks.py", "light", exit_code=3, env={"FLYTE_LOCKED": "1"})
    assert "does not pin" in refused.stderr and not (shell.project / "flyte.lock").exists()
    (shell.project / "only.py").write_text(
        (shell.project / "tasks.py").read_text().partition("heavy =")[0]
        + "@light.task\ndef one() -> None: ...\n"
    )
    (shell.project / "tasks.py").unlink()
    shell("build", "only.py", "light")
    shell("lock", "--check")
    assert "does not pin nonsense" in shell("lock", "--upgrade", "nonsense", exit_code=2).stderr


def test_an_image_for_another_machine_does_not_run_here(shell: Shell) -> None:
    """An image for another platform is refused, and not built for this machine instead."""
    tasks = shell.project / "tasks.py"
    tasks.write_text(
        tasks.read_text().replace("from_debian_base()", "from_debian_base(platform='linux/arm64')")
    )
    if os.uname().machine == "x86_64":
        assert "is for linux/arm64" in shell("run", "tasks.py", "hello", exit_code=3).stderr


@pytest.mark.slow
def test_secrets_are_in_no_context_of_a_dockerfile(shell: Shell) -> None:
    """Secrets and outside directories are refused in the context of a Dockerfile."""
    tasks = shell.project / "tasks.py"
    tasks.write_text(
        tasks.read_text().replace(
            "image=packages)", "image=flyte.Image.from_dockerfile('made/Dockerfile'))"
        )
    )
    made = shell.project / "made"
    made.mkdir()
    (made / "Dockerfile").write_text(f"FROM {shell.variables['FLYTE_IMAGE_BASE']}\nCOPY . /made\n")
    (made / ".env").write_text("TOKEN=x\n")
    assert "made/.env" in shell("build", "tasks.py", "light", exit_code=3).stderr
    (made / ".dockerignore").write_text(".env\n")
    shell("build", "tasks.py", "light")
    tasks.write_text(tasks.read_text().replace("made/Dockerfile", "../Dockerfile"))
    (shell.project.parent / "Dockerfile").write_text("FROM scratch\n")
    assert "leads outside the project" in shell("build", "tasks.py", "light", exit_code=2).stderr


@pytest.mark.slow
def test_deleting_the_cache_changes_no_image(shell: Shell) -> None:
    """Results of executed steps survive a deleted cache, with `--locked` as well.

    They are kept with the user's data, too.
    """
    shell("run", "tasks.py", "cooked")
    built = shell.json("build", "tasks.py", "heavy")["images"][0]["identity"]
    lock = (shell.project / "flyte.lock").read_bytes()
    shutil.rmtree(shell.home / "cache")
    assert shell.json("build", "--locked", "tasks.py", "heavy")["images"][0]["identity"] == built
    assert "xecuted again" not in shell("run", "tasks.py", "cooked").stderr
    assert (shell.project / "flyte.lock").read_bytes() == lock


@pytest.mark.slow
def test_a_result_that_is_lost_is_said_to_be(shell: Shell) -> None:
    """A lost result is executed again and reported; with `--locked` that is refused."""
    shell("run", "tasks.py", "cooked")
    shutil.rmtree(shell.home)
    refused = shell("run", "--locked", "tasks.py", "cooked", exit_code=3).stderr
    assert "Cannot find the pinned result of" in refused and "  |" not in refused
    assert re.search(
        r"Executed again: .* is now \w{12}; it was \w{12}, which cannot be found any more",
        shell("run", "tasks.py", "cooked").stderr,
    )


@pytest.mark.slow
def test_two_builds_at_once_execute_once(shell: Shell) -> None:
    """Of two concurrent builds, one executes, and the other uses the image that it pins."""
    tasks = shell.project / "tasks.py"
    tasks.write_text(
        tasks.read_text().replace(
            "printf %s $COLOUR >> /colour", "sleep 2; head -c 8 /dev/urandom > /colour"
        )
    )
    command = [FLYTE, "-of", "json", "build", "tasks.py", "heavy"]
    both = [
        subprocess.Popen(
            command,
            cwd=shell.project,
            env=shell.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    answers = [json.loads(each.communicate()[0])["images"][0]["identity"] for each in both]
    assert (
        answers[0]
        == answers[1]
        == shell.json("build", "--locked", "tasks.py", "heavy")["images"][0]["identity"]
    )


@pytest.mark.slow
def test_a_forced_build_executes_again(shell: Shell) -> None:
    """`--force` executes again and pins the new result; with `--locked` it is refused."""
    shell("build", "tasks.py", "heavy")
    refused = shell("build", "--force", "--locked", "tasks.py", "heavy", exit_code=3).stderr
    assert re.search(r"Cannot execute .* again", refused)
    lock = (shell.project / "flyte.lock").read_bytes()
    assert re.search(
        r"Executed again: .* it was \w{12}\.", shell("build", "--force", "tasks.py", "heavy").stderr
    )
    assert (shell.project / "flyte.lock").read_bytes() != lock


@pytest.mark.slow
def test_a_damaged_result_is_executed_again(shell: Shell) -> None:
    """A damaged result is never used, but executed again."""
    shell("build", "tasks.py", "heavy")
    shutil.rmtree(shell.home / "cache")
    blobs = sorted(
        (shell.home / "data/executed/blobs/sha256").iterdir(), key=lambda each: each.stat().st_size
    )
    blobs[-1].chmod(0o600)
    blobs[-1].write_bytes(b"x" * blobs[-1].stat().st_size)
    said = shell("build", "tasks.py", "heavy").stderr
    assert "The stored result of" in said and "cannot be read" in said and "Executed again" in said
    shutil.rmtree(shell.home / "cache")
    assert "xecuted again" not in shell("build", "tasks.py", "heavy").stderr


@pytest.mark.slow
def test_what_no_project_pins_any_more_is_collected(shell: Shell) -> None:
    """A result is kept as long as its project pins it, and a dry run lists what is removed."""
    shell("build", "tasks.py", "heavy")
    shell("cache", "gc", "--keep", "0s")
    kept = shell.home / "data/executed/blobs/sha256"
    assert len(list(kept.iterdir())) >= 4
    (shell.project / "flyte.lock").unlink()
    shell("cache", "gc", "--keep", "1h")
    assert len(list(kept.iterdir())) >= 4
    dry = shell.json("cache", "gc", "--keep", "0s", "--dry-run")["removed"]
    assert {each["digest"] for each in dry} == {f"sha256:{each.name}" for each in kept.iterdir()}
    assert shell.json("cache", "gc", "--keep", "0s")["removed"] == dry
    assert not list(kept.iterdir())


@pytest.mark.slow
def test_a_deployed_result_is_found_again(shell: Shell, registry: Server) -> None:
    """A result that a deployment executed is published, and found when the cache is gone."""
    shell.variables["FLYTE_REGISTRY"] = registry.repository("runs/again")
    shell("deploy", "--version", "v1", "tasks.py", "heavy")
    lock = (shell.project / "flyte.lock").read_text()
    shell("cache", "gc", "--keep", "0s")
    assert "unchanged" in shell("deploy", "--version", "v1", "tasks.py", "heavy").stdout
    assert (shell.project / "flyte.lock").read_text() == lock


@pytest.mark.slow
def test_the_layers_of_a_dockerfile_are_its_own(shell: Shell) -> None:
    """The layers of a Dockerfile are built, then cached, and not shown as a base's."""
    base = shell.variables["FLYTE_IMAGE_BASE"]
    (shell.project / "Dockerfile").write_text(f"FROM {base}\nCOPY data.txt /etc/\n")
    (shell.project / "built.py").write_text(
        "import flyte\nimage ="
        " flyte.Image.from_dockerfile('Dockerfile').with_source_file('data.txt', '/srv/')\nenv ="
        " flyte.TaskEnvironment('built', image=image)\n@env.task\ndef one() -> None: ...\n"
    )
    for state in ("made", "cached"):
        layers = shell.json("build", "built.py", "env")["images"][0]["layers"]
        of_it, what = ("of the Dockerfile Dockerfile", state), "files data.txt -> /srv/data.txt"
        assert [(layer["what"], layer["state"]) for layer in layers] == [
            of_it,
            of_it,
            (what, state),
        ]
    shown = shell("build", "built.py", "env").stdout
    assert "base" not in shown and shown.count("of the Dockerfile Dockerfile") == 2
