"""Deployments through the command line: they never change, and run without their files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import Shell
from tests.support.deploying import TASKS, Deploying, write
from tests.support.needs import need
from tests.support.registries import Server, serve
from tests.support.shop import shop as shop


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry for all tests of this file, each of which has its own repository."""
    with serve(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(params=["this machine", "registry"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The place of deployments, as variables: this machine's directory, or a repository."""
    if request.param == "this machine":
        return {}
    server: Server = request.getfixturevalue("server")
    return {"FLYTE_REGISTRY": server.repository(f"team/{tmp_path.name.lower().replace('_', '-')}")}


@pytest.fixture
def flyte(project: Path, tmp_path: Path, place: dict[str, str]) -> Deploying:
    """The command in a project with two tasks."""
    write(project)
    shell = Deploying(project, tmp_path / "home")
    shell.place = place
    return shell


def test_a_deployed_task_runs_without_its_files(flyte: Deploying, tmp_path: Path) -> None:
    """A deployed task runs on another machine, after the project is gone, and prepares nothing."""
    deployed = flyte.deploy("--version", "v1", "tasks.py", "env")
    assert deployed["state"] == "created" and [task["name"] for task in deployed["tasks"]] == [
        "greet.hello",
        "greet.reads",
    ]
    assert deployed["tasks"][0]["environment"]["kind"] == "host" and deployed["tasks"][0][
        "environment"
    ]["digest"].startswith("sha256:")
    where = flyte.place.get("FLYTE_REGISTRY")
    assert deployed["reference"] == (f"{where}:default.development.greet.v1" if where else None)
    shutil.rmtree(flyte.project)
    other = flyte.elsewhere(tmp_path / "other")
    for name in (
        "greet.hello",
        "greet.hello:v1",
        "greet.hello:latest",
        f"greet.hello@{deployed['digest']}",
    ):
        result = other.json("run", "deployed-task", name, "--name", "Ann")
        assert (
            result["outputs"] == {"o0": "Hello, Ann!"}
            and result["prepared"] == []
            and result["counters"]["layers_made"] == 0
        )
    row = other.json("get", "run", result["run"])
    assert (row["task"], row["version"]) == ("greet.hello", "v1")
    help = other("run", "deployed-task", "greet.hello", "--help").stdout
    assert "Who is greeted." in help and "Greet somebody." in help
    failed = other.json("run", "deployed-task", "greet.reads", exit_code=1)["error"]
    assert failed["type"] == "FileNotFoundError" and "include=" not in json.dumps(failed)
    assert other("rerun", result["run"], "--name", "Bob").stdout == "Hello, Bob!\n"


@pytest.mark.slow
def test_a_pin_needs_no_request_once_it_has_run(flyte: Deploying, tmp_path: Path) -> None:
    """Once a pin has run, it runs again without a request, even if the registry is gone."""
    pin = flyte.deploy("tasks.py")["digest"]
    other = flyte.elsewhere(tmp_path / "other")
    other("run", "deployed-task", f"greet.hello@{pin}")
    if flyte.place:
        other.place = {"FLYTE_REGISTRY": "localhost:1/gone"}
    again = other.json("run", "deployed-task", f"greet.hello@{pin}")
    assert again["counters"]["requests"] == 0 and again["counters"]["bytes_written"] == 0
    if flyte.place:
        assert "@sha256:" in other("run", "deployed-task", "greet.hello", exit_code=3).stderr


def test_a_version_never_changes(flyte: Deploying) -> None:
    """Deploying a version again does nothing, and other content is refused with the differences."""
    first = flyte.deploy("--version", "v1", "tasks.py")
    again = flyte.deploy("--version", "v1", "tasks.py")
    assert (first["state"], again["state"], first["digest"]) == (
        "created",
        "unchanged",
        again["digest"],
    )
    write(flyte.project, "1Gi", "2Gi")
    (flyte.project / "lib.py").write_text("GREETING = 'Hi'\n")
    errors = flyte("deploy", "--version", "v1", "tasks.py", exit_code=3).stderr
    assert "hello: memory 1Gi -> 2Gi" in errors and "files changed: lib.py, tasks.py" in errors
    assert flyte("run", "deployed-task", "greet.hello").stdout == "Hello, World!\n"
    second = flyte.deploy("tasks.py")
    assert (
        second["state"] == "created"
        and second["version"] == second["digest"].removeprefix("sha256:")[:12]
    )
    assert flyte("run", "deployed-task", "greet.hello").stdout == "Hi, World!\n"
    write(flyte.project)
    assert flyte.deploy("--version", "v1", "tasks.py")["state"] == "unchanged"
    assert flyte("run", "deployed-task", "greet.hello").stdout == "Hello, World!\n", (
        "what was deployed last is the latest"
    )


def test_deploying_the_same_again_asks_little(flyte: Deploying) -> None:
    """Deploying a version again sends nothing, and only checks that its parts are there.

    They are the version, all that it names, its pin and `latest`.
    """
    flyte.deploy("--version", "v1", "tasks.py")
    counters = flyte.json("deploy", "--version", "v1", "tasks.py")["counters"]
    manifests, blobs = 5, 2 + 3  # A deployment has two blobs, the bundle of so few files three.
    assert counters["bytes_sent"] == 0 and counters["requests"] == (
        manifests + blobs if flyte.place else 0
    )


def test_what_was_lost_is_found_and_put_back(flyte: Deploying, tmp_path: Path) -> None:
    """`doctor` names a lost blob with exit code 3, and deploying again restores it."""
    flyte.deploy("--version", "v1", "tasks.py")
    flyte("doctor")
    if flyte.place:
        with serve(tmp_path / "own") as own:
            flyte.place = {"FLYTE_REGISTRY": own.repository("x")}
            _lose(flyte, lambda digest: own.blob(digest))
    else:
        _lose(
            flyte,
            lambda digest: (
                flyte.home / "data/deployments/blobs/sha256" / digest.removeprefix("sha256:")
            ),
        )


def _lose(flyte: Deploying, file: Callable[[str], Path]) -> None:
    pin = flyte.deploy("--version", "v1", "tasks.py")["digest"]
    layer = json.loads(file(pin).read_text())["layers"][0]["digest"]
    file(layer).unlink()
    assert layer in flyte("doctor", exit_code=3).stdout
    assert flyte.json("doctor", exit_code=3)["deployments"][0]["lost"] == [layer]
    assert flyte.deploy("--version", "v1", "tasks.py")["state"] == "unchanged"
    flyte("doctor")


def test_what_is_deployed_is_listed_and_shown(flyte: Deploying) -> None:
    """Deployments are listed from the newest on, and a version is shown in full."""
    flyte.deploy("--version", "v1", "tasks.py")
    write(flyte.project, "cpu=1", "cpu=2")
    flyte.deploy("--version", "v2", "tasks.py")
    listed = flyte.json("get", "deployment")
    assert [(row["name"], row["version"], row["latest"]) for row in listed] == [
        ("greet", "v2", True),
        ("greet", "v1", False),
    ]
    assert [row["name"] for row in flyte.json("get", "task", "--limit", "3")] == [
        "greet.hello",
        "greet.reads",
        "greet.hello",
    ]
    assert [row["version"] for row in flyte.json("get", "task", "greet.hello")] == ["v2", "v1"]
    shown = flyte.json("get", "task", "greet.hello", "v1")
    assert (
        shown["tasks"]["hello"]["options"]["resources"] == {"cpu": 1, "memory": "1Gi"}
        and shown["host"]["python"]
    )
    assert set(flyte.json("get", "deployment", "greet", "v1")["tasks"]) == {"hello", "reads"}
    assert "input     name: str = World" in flyte("get", "task", "greet.hello", "v2").stdout


def test_two_versions_are_compared(flyte: Deploying) -> None:
    """A diff of two versions shows changes of interface, resources, variables and files."""
    flyte.deploy("--version", "v1", "tasks.py")
    write(flyte.project, 'name: str = "World"', "name: str, times: int = 1")
    flyte.deploy("--version", "v2", "tasks.py")
    found = flyte.json("diff", "greet:v1", "greet:v2")
    assert found["files"] == {"added": [], "removed": [], "changed": ["tasks.py"]}
    assert {change["section"] for change in found["changes"]} == {"interface"}
    assert "hello: input times added" in flyte("diff", "greet:v1", "greet").stdout
    assert "are the same" in flyte("diff", "greet:v2", "greet").stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("greet.helo", "Did you mean greet.hello?"),
        ("gret.hello", "Did you mean greet?"),
        ("greet.hello:v9", "there is one: v1"),
        (f"greet.hello@sha256:{'0' * 64}", "There is no deployment"),
    ],
)
def test_what_is_not_there_is_named_with_the_nearest(
    flyte: Deploying, name: str, said: str
) -> None:
    """An unknown name is exit code 4, with the nearest known one."""
    flyte.deploy("--version", "v1", "tasks.py")
    assert said in flyte("run", "deployed-task", name, exit_code=4).stderr


def test_another_domain_is_said(flyte: Deploying) -> None:
    """A deployment in one domain is not found in another, which the error names."""
    flyte.deploy("--domain", "production", "tasks.py")
    assert "--domain production" in flyte("run", "deployed-task", "greet.hello", exit_code=4).stderr
    assert (
        flyte("run", "-d", "production", "deployed-task", "greet.hello").stdout == "Hello, World!\n"
    )
    run = flyte.json(
        "run", "-d", "production", "deployed-task", "--run-project", "other", "greet.hello"
    )["run"]
    assert (
        json.loads((flyte.home / f"data/v1/runs/{run}/action.json").read_text())["project"]
        == "other"
    )


@pytest.mark.slow
def test_deleting_takes_nothing_else_along(flyte: Deploying, tmp_path: Path) -> None:
    """Deleting a version removes nothing that another one needs.

    Two versions have the same content, and a third one has other code. The newest remaining one
    becomes the latest.
    """
    flyte.deploy("--version", "v1", "tasks.py")
    flyte.deploy("--version", "same", "tasks.py")
    (flyte.project / "lib.py").write_text("GREETING = 'Hi'\n")
    flyte.deploy("--version", "v3", "tasks.py")
    pin = flyte.json("get", "deployment", "greet", "v1")["digest"]
    assert [
        gone["version"] for gone in flyte.json("delete", "deployment", "greet:v3")["deleted"]
    ] == ["v3"]
    assert [row["version"] for row in flyte.json("get", "deployment") if row["latest"]] == ["same"]
    flyte("delete", "deployment", "greet:same")
    flyte("doctor")
    other = flyte.elsewhere(tmp_path / "other")
    for name in ("greet.hello", f"greet.hello@{pin}"):
        assert other("run", "deployed-task", name).stdout == "Hello, World!\n"
    flyte("delete", "deployment", "greet:nothing", exit_code=4)
    flyte("delete", "deployment", "-y", "greet")
    assert flyte.json("get", "deployment") == []


def test_environments_that_depend_on_each_other_have_one_version(flyte: Deploying) -> None:
    """Environments that depend on each other, in a cycle too, are deployed as one version.

    `--all` deploys all of a file, and a directory with `-r` all of its files, each environment
    once.
    """
    (flyte.project / "base.py").write_text(
        "import flyte\nbase = flyte.TaskEnvironment(name='base')\n@base.task\ndef one() -> int:"
        " return 1\n"
    )
    (flyte.project / "top.py").write_text(
        "import flyte\nfrom base import base, one\n"
        "top = flyte.TaskEnvironment(name='top', depends_on=[base])\nbase.add_dependency(top)\n"
        "@top.task\ndef two() -> int: return one() + 1\n"
    )
    found = flyte.json("deploy", "top.py")["deployments"]
    assert [each["env"] for each in found] == ["top", "base"] and len(
        {each["version"] for each in found}
    ) == 1
    assert flyte("run", "deployed-task", "top.two").stdout == "2\n"
    assert {each["env"] for each in flyte.json("deploy", "--all", "top.py")["deployments"]} == {
        "top",
        "base",
    }
    (flyte.project / "broken.py").write_text("import flyte, missing_module\n")
    assert "broken.py" in flyte("deploy", "-r", ".", exit_code=3).stderr
    below = flyte.json("deploy", "-r", "-i", ".")["deployments"]
    assert (
        sorted(each["env"] for each in below) == ["base", "greet", "top"]
        and len({each["version"] for each in below}) == 1
    )


def test_a_dry_run_makes_and_asks_nothing(flyte: Deploying) -> None:
    """A dry run knows version and digest without a connection, and builds nothing."""
    if flyte.place:
        flyte.place = {"FLYTE_REGISTRY": "localhost:1/gone"}
    planned = flyte.deploy("--dry-run", "tasks.py")
    assert planned["state"] == "planned" and flyte.json("cache", "stats")["blobs"] == 0
    flyte.place = {}
    done = flyte.deploy("tasks.py")
    assert (done["version"], done["digest"], done["state"]) == (
        planned["version"],
        planned["digest"],
        "created",
    )


def test_a_dry_run_needs_no_lock(shop: Shell) -> None:
    """A dry run without flyte.lock knows nothing of the image; with `--locked` it is an error.

    flyte.lock is not written.
    """
    (planned,) = shop.json("deploy", "--dry-run", "tasks.py")["deployments"]
    assert (planned["state"], planned["version"], planned["digest"]) == ("planned", None, None)
    assert not (shop.project / "flyte.lock").exists()
    done = shop("deploy", "--dry-run", "--locked", "tasks.py", exit_code=3)
    assert "Run `flyte lock`" in done.stderr


def test_the_digest_is_the_same_everywhere(tmp_path: Path) -> None:
    """The digest depends on no directory, home, time zone, umask, hash seed or user.

    Defaults that are sets or objects do not change it, either.
    """
    more = (
        "\nclass Thing: pass\n@env.task\ndef odd(thing: Thing = Thing(), names: set[str] = {'a',"
        " 'b', 'c'}) -> None: ...\nbuilt = flyte.TaskEnvironment(name='built',"
        f" image='registry.example.com/built@sha256:{'0' * 64}')\n@built.task\ndef one() -> None:"
        " ...\n"
    )
    digests = []
    for number, (mask, variables) in enumerate(
        (("022", {"PYTHONHASHSEED": "1"}), ("077", {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo"}))
    ):
        folder = tmp_path / f"{'deeper/' * number}project"
        folder.mkdir(parents=True)
        write(folder)
        (folder / "tasks.py").write_text(TASKS + more)
        command = (
            f"umask {mask}; exec {os.path.dirname(sys.executable)}/flyte -of json deploy --all"
            " tasks.py"
        )
        env = {
            **os.environ,
            "FLYTE_HOME": str(tmp_path / f"home{number}"),
            "HOME": str(folder),
            **variables,
        }
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=True
        )
        digests.append(
            [
                (each["env"], each["version"], each["digest"])
                for each in json.loads(done.stdout)["deployments"]
            ]
        )
    assert digests[0] == digests[1] and len(digests[0]) == 2


def test_what_a_wrong_command_says(flyte: Deploying) -> None:
    """The error about a wrong command names the mistake.

    It may be a name that no tag can have, a version that is an alias, a directory or a variable.
    """
    (flyte.project / "two.py").write_text(
        TASKS + "\nother = flyte.TaskEnvironment(name='other')\n@other.task\ndef a() -> None: ...\n"
    )
    for args, code, said in (
        (["--version", "latest", "tasks.py"], 2, "deployed last"),
        (["--version", "a b", "tasks.py"], 2, "is not a valid version"),
        (["--version", ".x", "tasks.py"], 2, "A version begins with a letter, a digit or `_`"),
        (["--version", "x" * 120, "tasks.py"], 2, "cannot be used as a tag"),
        (["--project", "a.b", "tasks.py"], 2, "without dots"),
        (["."], 2, "flyte deploy -r ."),
        (["tasks.py", "en"], 2, "Did you mean 'env'?"),
        (["two.py"], 2, "env, other"),
        (["--all", "two.py", "env"], 2, "cannot be used with --all"),
        (["-r", "tasks.py"], 2, "is not a directory"),
        (["lib.py"], 2, "No environment given"),
    ):
        assert said in flyte("deploy", *args, exit_code=code).stderr, args


@pytest.mark.slow
def test_an_image_is_pinned_by_its_digest(flyte: Deploying, server: Server) -> None:
    """An image is pinned by its digest, which is looked up on deploying, but not in a dry run.

    An image that cannot be found is an error.
    """
    environment = (
        "flyte.TaskEnvironment(name='imaged', image=os.environ['IMAGE'])\n@env.task\ndef one() ->"
        " int: return 1\n"
    )
    kept = {"FLYTE_REGISTRY": server.repository("images")}
    write(flyte.project)
    base = Deploying(flyte.project, flyte.home)
    base.place = kept
    base.deploy("--version", "v1", "tasks.py")  # Any manifest will do as an image.

    (flyte.project / "imaged.py").write_text("import flyte, os\nenv = " + environment)
    own = dict(flyte.place)

    def using(image: str) -> None:
        flyte.place = {**own, "IMAGE": image}

    using(server.repository("images:default.development.greet.v1"))
    planned = flyte.deploy("--dry-run", "imaged.py")
    assert planned["digest"] is None and planned["tasks"][0]["environment"] == {
        "kind": "reference",
        "digest": None,
    }
    assert "does not pin" in flyte("deploy", "--locked", "imaged.py", exit_code=3).stderr
    by_tag = flyte.deploy("imaged.py")
    assert by_tag["digest"] == flyte.deploy("--locked", "imaged.py")["digest"]
    digest = by_tag["tasks"][0]["environment"]["digest"]
    using(server.repository(f"images@{digest}"))
    assert flyte.deploy("imaged.py")["digest"] == by_tag["digest"]
    assert (
        "--engine docker"
        in flyte("run", "--engine", "process", "deployed-task", "imaged.one", exit_code=3).stderr
    )
    flyte("doctor")
    base("delete", "deployment", "-y", "greet")
    assert digest in flyte("doctor", exit_code=3).stdout
    using(server.repository("images:gone"))
    assert "Cannot find the image" in flyte("deploy", "imaged.py", exit_code=3).stderr


def test_a_difference_of_the_host_is_said_once(flyte: Deploying, tmp_path: Path) -> None:
    """A run notes once which of the deploying host's distributions are missing here."""
    site = tmp_path / "site"
    (site / "only_there-1.2.dist-info").mkdir(parents=True)
    (site / "only_there-1.2.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: only-there\nVersion: 1.2\n"
    )
    flyte.json("deploy", "tasks.py", env={"PYTHONPATH": str(site)})
    errors = flyte("run", "deployed-task", "greet.hello").stderr
    assert errors.count("different interpreter") == 1 and "no only-there (1.2)" in errors


def test_a_commit_is_known_and_whether_files_were_changed(flyte: Deploying) -> None:
    """The commit and local changes are recorded, and do not affect the digest."""
    plain = flyte.deploy("--version", "v1", "tasks.py")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=flyte.project, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=flyte.project, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert flyte.deploy("--version", "v2", "tasks.py")["digest"] == plain["digest"]
    shown = flyte.json("get", "deployment", "greet", "v2")
    assert (shown["commit"], shown["dirty"]) == (head, False)
    write(flyte.project, "cpu=1", "cpu=2")
    flyte.deploy("--version", "v3", "tasks.py")
    assert flyte.json("get", "deployment", "greet", "v3")["dirty"] is True
    assert [row["commit"] for row in flyte.json("get", "deployment", "greet")] == [head, head, None]


def test_a_registry_that_does_not_allow_deleting_stays_as_it_was(
    flyte: Deploying, tmp_path: Path
) -> None:
    """A registry that cannot delete is left unchanged, and the error says what to allow."""
    if not flyte.place:
        pytest.skip("a directory always allows it")
    with serve(tmp_path / "own", delete=False) as own:
        flyte.place = {"FLYTE_REGISTRY": own.repository("x")}
        flyte.deploy("--version", "v1", "tasks.py")
        write(flyte.project, "cpu=1", "cpu=2")
        flyte.deploy("--version", "v2", "tasks.py")
        assert "does not allow" in flyte("delete", "deployment", "greet:v2", exit_code=3).stderr
        assert [(row["version"], row["latest"]) for row in flyte.json("get", "deployment")] == [
            ("v2", True),
            ("v1", False),
        ]
        flyte("doctor")


def test_a_tag_that_leads_elsewhere_is_refused(tmp_path: Path, project: Path) -> None:
    """A tag that leads to another deployment than its name or pin is refused."""
    flyte = Deploying(project, tmp_path / "home")
    flyte.place = {"FLYTE_REGISTRY": f"oci:{tmp_path}/shared"}
    write(project)
    one = flyte.deploy("--version", "v1", "tasks.py")
    write(project, "cpu=1", "cpu=2")
    two = flyte.deploy("--version", "v2", "tasks.py")
    path = tmp_path / "shared/index.json"
    index = json.loads(path.read_text())
    tagged = {
        entry["annotations"]["org.opencontainers.image.ref.name"]: entry
        for entry in index["manifests"]
    }

    def exchange(tag: str, other: str) -> None:
        annotations = {"org.opencontainers.image.ref.name": tag}
        entries = [
            {**tagged[other], "annotations": annotations},
            *(entry for name, entry in tagged.items() if name != tag),
        ]
        path.write_text(json.dumps({**index, "manifests": entries}))

    stranger = Deploying(project, tmp_path / "stranger")
    stranger.place = flyte.place
    exchange(
        "pin." + one["digest"].removeprefix("sha256:"),
        "pin." + two["digest"].removeprefix("sha256:"),
    )
    assert (
        "another deployment"
        in stranger("run", "deployed-task", f"greet.hello@{one['digest']}", exit_code=3).stderr
    )
    exchange("default.development.greet.v1", "default.development.greet.v2")
    assert (
        "another deployment"
        in stranger("run", "deployed-task", "greet.hello:v1", exit_code=3).stderr
    )
    exchange("default.development.greet.v1", "keep." + one["digest"].removeprefix("sha256:"))
    assert (
        "is not a deployment"
        in stranger("run", "deployed-task", "greet.hello:v1", exit_code=3).stderr
    )


def test_one_of_many_that_deploy_the_same_version_at_once_wins(tmp_path: Path) -> None:
    """Of several machines that deploy one version at once, one wins, and all of it is there."""
    shells = []
    for number in range(4):
        folder = tmp_path / f"project{number}"
        folder.mkdir()
        write(folder, "cpu=1", f"cpu={number + 1}")
        shell = Deploying(folder, tmp_path / f"home{number}")
        shell.place = {"FLYTE_REGISTRY": f"oci:{tmp_path}/shared"}
        shells.append(shell)
    commands = [shell.start("deploy", "--version", "v1", "tasks.py") for shell in shells]
    codes = [command.wait(timeout=60) for command in commands]
    for command in commands:
        command.communicate()
    assert set(codes) <= {0, 3} and 0 in codes
    shells[0]("doctor")
    assert shells[0]("run", "deployed-task", "greet.hello:v1").stdout == "Hello, World!\n"


def test_modules_are_imported_from_what_was_deployed(flyte: Deploying) -> None:
    """A deployed task imports its own modules from its bundle, not from a directory here.

    The latter may have modules of their names.
    """
    flyte.deploy("tasks.py")
    (flyte.project / "lib.py").write_text("GREETING = 'Wrong'\n")
    assert flyte("run", "deployed-task", "greet.hello").stdout == "Hello, World!\n"
    assert (
        flyte("run", "deployed-task", "greet.hello", env={"PYTHONPATH": str(flyte.project)}).stdout
        == "Hello, World!\n"
    )


@pytest.mark.parametrize("layout", ["src", "package"])
def test_projects_of_every_layout_are_deployed(
    flyte: Deploying, layout: str, tmp_path: Path
) -> None:
    """Import roots are deployed with projects of every layout."""
    task = (
        "import flyte\n{imports}\nenv = flyte.TaskEnvironment(name='layout')\n@env.task\ndef job()"
        " -> str: return V\n"
    )
    folder = {"src": "src/app", "package": "a/b"}[layout]
    (flyte.project / folder).mkdir(parents=True)
    for package in ("src/app", "a", "a/b"):
        if (flyte.project / package).is_dir():
            (flyte.project / package / "__init__.py").touch()
    (flyte.project / folder / "near.py").write_text(f"V = '{layout}'\n")
    (flyte.project / folder / "jobs.py").write_text(task.format(imports="from .near import V"))
    flyte.deploy(f"{folder}/jobs.py")
    assert (
        flyte.elsewhere(tmp_path / "other")("run", "deployed-task", "layout.job").stdout
        == f"{layout}\n"
    )


def test_what_skopeo_has_copied_is_used(server: Server, project: Path, tmp_path: Path) -> None:
    """A deployment that skopeo copied by its version's tag has the same pin, and runs."""
    need("skopeo")
    write(project)
    flyte = Deploying(project, tmp_path / "home")
    flyte.place = {"FLYTE_REGISTRY": server.repository("original")}
    pin = flyte.deploy("--version", "v1", "tasks.py")["digest"]
    source, target = (
        f"docker://{server.repository(name)}:default.development.greet.v1"
        for name in ("original", "copied")
    )
    options = ["--all", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run(["skopeo", "copy", "--quiet", *options, source, target], check=True)
    other = Deploying(project, tmp_path / "other")
    other.place = {"FLYTE_REGISTRY": server.repository("copied")}
    for name in (f"greet.hello@{pin}", "greet.hello:v1"):
        assert other("run", "deployed-task", name).stdout == "Hello, World!\n"
    other("doctor")


def test_a_file_that_deploys_itself_while_it_is_imported_is_refused(flyte: Deploying) -> None:
    """A file that deploys itself while it is imported is refused: that would never end."""
    for call in ("flyte.deploy(env)", "flyte.init_from_config(); flyte.run(hello)"):
        (flyte.project / "unguarded.py").write_text(f"{TASKS}\n{call}\n")
        done = subprocess.run(
            [sys.executable, "unguarded.py"],
            cwd=flyte.project,
            env=flyte.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (
            done.returncode == 1 and "must not be called while the file is imported" in done.stderr
        )
