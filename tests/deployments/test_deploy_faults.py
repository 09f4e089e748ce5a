"""Deployments that others change, lose or damage: at the same moment, by hand, or on purpose."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploying import Deploying, write
from tests.support.faults import FaultProxy
from tests.support.layouts import Layout
from tests.support.registries import Server, serve


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry for all tests of this file, each of which has its own repository."""
    with serve(tmp_path_factory.mktemp("registry")) as server:
        yield server


class Machines:
    """Machines that deploy to one repository: each has its own project and home."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server, self.name = (
            folder,
            server,
            f"faults/{folder.name.lower().replace('_', '-')}",
        )

    def machine(self, name: str, host: str = "", cpu: int = 1) -> Deploying:
        """Return a machine, whose registry may be at another host and whose tasks request `cpu`."""
        project = self.folder / name
        project.mkdir()
        write(project, "cpu=1", f"cpu={cpu}")
        shell = Deploying(project, self.folder / f"{name}-home")
        shell.place = {"FLYTE_REGISTRY": f"{host or self.server.host}/{self.name}"}
        return shell

    def tags(self) -> set[str]:
        """Return the tags in the repository; those of manifests have their first digits alone."""
        with urllib.request.urlopen(f"{self.server.url}/v2/{self.name}/tags/list") as answer:
            return {
                tag[:13] if tag.startswith(("keep.", "pin.")) else tag
                for tag in json.load(answer)["tags"] or ()
            }


@pytest.fixture
def machines(tmp_path: Path, server: Server) -> Machines:
    return Machines(tmp_path, server)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "shared")


@pytest.fixture
def flyte(project: Path, tmp_path: Path, layout: Layout) -> Deploying:
    """The command in a project with two tasks, whose deployments are in the layout."""
    write(project)
    shell = Deploying(project, tmp_path / "home")
    shell.place = {"FLYTE_REGISTRY": f"oci:{layout.folder}"}
    return shell


def test_a_version_that_another_deploys_in_between_is_put_back(machines: Machines) -> None:
    """A version that another machine deploys between the lookup and the PUT of the tag stays.

    That machine was told that its version is deployed.
    """
    with FaultProxy(machines.server.url) as proxy:
        one, two = machines.machine("one"), machines.machine("two", proxy.host, cpu=2)
        pins: list[str] = []
        proxy.on("PUT", r"greet\.v1").calls(
            lambda: pins.append(one.deploy("--version", "v1", "tasks.py")["digest"])
        )
        assert (
            "at the same time" in two("deploy", "--version", "v1", "tasks.py", exit_code=3).stderr
        )
    (row,) = one.json("get", "deployment")
    assert (row["version"], row["digest"], row["latest"]) == ("v1", pins[0], True)
    two.place = one.place
    assert "already deployed" in two("deploy", "--version", "v1", "tasks.py", exit_code=3).stderr


def test_one_that_is_overwritten_says_so(machines: Machines) -> None:
    """If both look before either puts the version's tag, the last one wins, the other one fails."""
    with FaultProxy(machines.server.url) as slow, FaultProxy(machines.server.url) as fast:
        one, two = machines.machine("one", fast.host), machines.machine("two", slow.host, cpu=2)
        waiting, goes_on = threading.Event(), threading.Event()

        def wait() -> None:
            waiting.set()
            assert goes_on.wait(60)

        slow.on("PUT", r"greet\.v1").calls(wait)
        second = two.start("deploy", "--version", "v1", "tasks.py")

        def overtake() -> None:
            goes_on.set()
            second.communicate(timeout=60)

        assert waiting.wait(60)
        fast.on("PUT", r"greet\.latest").calls(overtake)
        assert (
            "at the same time" in one("deploy", "--version", "v1", "tasks.py", exit_code=3).stderr
        )
    assert second.returncode == 0
    two.place = {"FLYTE_REGISTRY": machines.server.repository(machines.name)}
    (row,) = two.json("get", "deployment")
    assert row["latest"] and row["digest"] == two.deploy("--version", "v1", "tasks.py")["digest"]


def test_of_many_that_deploy_to_a_folder_at_once_one_creates_the_version(tmp_path: Path) -> None:
    """Of many that deploy a version to a directory at once, one succeeds, and all others fail.

    No one else writes the tags of a directory.
    """
    shells = []
    for number in range(5):
        folder = tmp_path / f"project{number}"
        folder.mkdir()
        write(folder, "cpu=1", f"cpu={number + 1}")
        shell = Deploying(folder, tmp_path / f"home{number}")
        shell.place = {"FLYTE_REGISTRY": f"oci:{tmp_path}/shared"}
        shell("deploy", "--dry-run", "tasks.py")
        shells.append(shell)
    commands = [shell.start("deploy", "--version", "v1", "tasks.py") for shell in shells]
    for command in commands:
        command.communicate(timeout=120)
    assert sorted(command.returncode for command in commands) == [0, 3, 3, 3, 3]


@pytest.mark.parametrize("moment", [r"greet\.v2", r"greet\.latest"])
def test_what_is_deleted_beside_a_deployment_takes_none_of_its_tags(
    machines: Machines, moment: str
) -> None:
    """Deleting a version beside a deployment of the same content removes none of its tags."""
    with FaultProxy(machines.server.url) as proxy:
        one, two = machines.machine("one"), machines.machine("two", proxy.host)
        pin = one.deploy("--version", "v1", "tasks.py")["digest"]
        before = machines.tags()
        proxy.on("PUT", moment).calls(lambda: one("delete", "deployment", "greet:v1"))
        assert two.deploy("--version", "v2", "tasks.py")["digest"] == pin
    assert machines.tags() == before - {"default.development.greet.v1"} | {
        "default.development.greet.v2"
    }
    assert one.json("doctor")["deployments"][0]["untagged"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), [("PUT", "/manifests/keep"), ("DELETE", "")])
def test_what_is_deployed_beside_a_deletion_keeps_its_tags(
    machines: Machines, method: str, path: str
) -> None:
    """A version that is deployed beside a deletion keeps its tags, and is the latest.

    Another, older version would have been the latest. Tags in use are looked up again at the end.
    """
    with FaultProxy(machines.server.url) as proxy:
        one, two = machines.machine("one", proxy.host), machines.machine("two")
        other = machines.machine("other", cpu=2)
        other.deploy("--version", "v0", "tasks.py")
        one.deploy("--version", "v1", "tasks.py")
        before = machines.tags()
        proxy.on(method, path).calls(lambda: two.deploy("--version", "v2", "tasks.py"))
        one("delete", "deployment", "greet:v1")
    assert machines.tags() == before - {"default.development.greet.v1"} | {
        "default.development.greet.v2"
    }
    assert [(row["version"], row["latest"]) for row in two.json("get", "deployment")] == [
        ("v2", True),
        ("v0", False),
    ]
    assert all(each["untagged"] == [] for each in two.json("doctor")["deployments"])


def test_missing_tags_are_reported_and_put_back(flyte: Deploying, layout: Layout) -> None:
    """`doctor` reports missing tags, as after an interruption; deploying again restores them."""
    flyte.deploy("--version", "v1", "tasks.py")
    entries = layout.entries()
    version = "default.development.greet.v1"
    layout.write(
        {
            tag: entry
            for tag, entry in entries.items()
            if tag == version or tag.startswith("record.")
        }
    )
    assert "Deploy the same again to restore the tags" in flyte("doctor").stderr
    (found,) = flyte.json("doctor")["deployments"]
    assert (found["state"], sorted(tag.partition(".")[0] for tag in found["untagged"])) == (
        "ok",
        ["default", "keep", "keep", "pin"],
    )
    assert flyte.deploy("--version", "v1", "tasks.py")["state"] == "unchanged"
    assert layout.entries().keys() == entries.keys()
    layout.write(
        {
            **layout.entries(),
            **{tag: entries[version] for tag in entries if tag.startswith("keep.")},
        }
    )
    assert len(flyte.json("doctor")["deployments"][0]["untagged"]) == 2, (
        "a tag that leads elsewhere keeps nothing"
    )
    flyte.deploy("--version", "v1", "tasks.py")
    assert flyte.json("doctor")["deployments"][0]["untagged"] == []


def test_the_latest_version_alone_is_deleted_by_that_name(flyte: Deploying) -> None:
    """The latest version is the one that was deployed last, which need not be the newest.

    Deleting `latest` deletes that one alone.
    """
    flyte.deploy("--version", "v1", "tasks.py")
    write(flyte.project, "cpu=1", "cpu=2")
    flyte.deploy("--version", "v2", "tasks.py")
    write(flyte.project)
    flyte.deploy("--version", "v1", "tasks.py")
    assert [
        each["version"] for each in flyte.json("delete", "deployment", "greet:latest")["deleted"]
    ] == ["v1"]
    assert [(row["version"], row["latest"]) for row in flyte.json("get", "deployment")] == [
        ("v2", True)
    ]


def _three(flyte: Deploying) -> list[str]:
    pins = []
    for number in (1, 2, 3):
        write(flyte.project, "cpu=1", f"cpu={number}")
        (flyte.project / "lib.py").write_text(f"GREETING = '{number}'\n")
        pins.append(flyte.deploy("--version", f"v{number}", "tasks.py")["digest"])
    return pins


def test_the_doctor_names_every_version_whatever_is_wrong_with_others(
    flyte: Deploying, layout: Layout
) -> None:
    """`doctor` reports every version, be it lost, damaged or intact."""
    _three(flyte)
    index = {
        tag.rpartition(".")[2]: layout.blob(entry["digest"])
        for tag, entry in layout.entries().items()
    }
    index["v1"].unlink()
    index["v2"].write_bytes(index["v2"].read_bytes().replace(b"greet", b"great"))
    found = {
        each["name"].rpartition(".")[2]: each
        for each in flyte.json("doctor", exit_code=3)["deployments"]
    }
    assert {name: each["state"] for name, each in found.items()} == {
        "v1": "lost",
        "v2": "damaged",
        "v3": "ok",
    }
    shown = flyte("get", "deployment")
    assert "v3" in shown.stdout and all(
        f"greet.{name} in " in shown.stderr for name in ("v1", "v2")
    )
    assert "note: default.development.greet.v3" not in shown.stderr
    for command in (
        ["run", "deployed-task", "greet.hello:v1"],
        ["delete", "deployment", "greet:v1"],
    ):
        assert "greet:v1 is lost" in flyte(*command, exit_code=4).stderr


@pytest.mark.slow
def test_a_registry_that_fails_for_one_manifest_hides_no_other(machines: Machines) -> None:
    """An error of the server for one manifest is reported, and hides no other version."""
    with FaultProxy(machines.server.url) as proxy:
        one = machines.machine("one", proxy.host)
        _three(one)
        proxy.on("GET", r"/manifests/.*greet\.v2", times=float("inf")).answers(500)
        found = {
            each["name"].rpartition(".")[2]: each
            for each in one.json("doctor", exit_code=3)["deployments"]
        }
        assert {name: each["state"] for name, each in found.items()} == {
            "v1": "ok",
            "v2": "lost",
            "v3": "ok",
        }
        assert "500" in found["v2"]["lost"][0]
        shown = one("get", "deployment")
        assert "v1" in shown.stdout and "v3" in shown.stdout and "greet.v2" in shown.stderr


@pytest.mark.parametrize("lie", [False, True])
def test_an_index_that_leads_to_other_code_is_damaged(
    flyte: Deploying, layout: Layout, lie: bool
) -> None:
    """An index that leads to other code is damaged, even if it claims to lead to the right one."""
    _three(flyte)
    other = json.loads(
        layout.blob(layout.entries()["default.development.greet.v2"]["digest"]).read_text()
    )["manifests"][1]

    def change(index: Any) -> None:
        index["manifests"][1] = {
            **other,
            **({"annotations": index["manifests"][1]["annotations"]} if lie else {}),
        }

    layout.replace("default.development.greet.v1", change)
    found = {
        each["name"].rpartition(".")[2]: each["state"]
        for each in flyte.json("doctor", exit_code=3)["deployments"]
    }
    assert found == {"v1": "damaged", "v2": "ok", "v3": "ok"}


def test_a_tag_that_was_moved_by_hand_is_said(flyte: Deploying, layout: Layout) -> None:
    """A tag that was moved by hand is reported, and its target is not listed twice."""
    _three(flyte)
    entries = layout.entries()
    layout.write(
        {**entries, "default.development.greet.v1": entries["default.development.greet.v2"]}
    )
    shown = flyte("get", "deployment")
    assert [line.split("\t")[1] for line in shown.stdout.splitlines()] == ["v3", "v2"]
    assert "greet.v1" in shown.stderr and "It leads to default.development.greet.v2" in shown.stderr
    found = {
        each["name"].rpartition(".")[2]: each["state"]
        for each in flyte.json("doctor", exit_code=3)["deployments"]
    }
    assert found == {"v1": "damaged", "v2": "ok", "v3": "ok"}
    assert (
        "leads to default.development.greet.v2"
        in flyte("deploy", "--version", "v1", "tasks.py", exit_code=3).stderr
    )


def test_a_tag_that_was_moved_to_the_same_content_is_put_right(
    flyte: Deploying, layout: Layout
) -> None:
    """A tag that was moved to the same content is repaired by deploying again."""
    flyte.deploy("--version", "v1", "tasks.py")
    flyte.deploy("--version", "v2", "tasks.py")
    entries = layout.entries()
    layout.write(
        {**entries, "default.development.greet.v1": entries["default.development.greet.v2"]}
    )
    flyte("doctor", exit_code=3)
    flyte.deploy("--version", "v1", "tasks.py")
    flyte("doctor")
    assert [(row["version"], row["latest"]) for row in flyte.json("get", "deployment")] == [
        ("v1", True),
        ("v2", False),
    ]
