"""`flyte build`, `flyte get image`, `flyte image inspect`, and building from Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flyte_build.cas.registry.manifest import Manifest
from flyte_build.images.platforms import linux_here
from tests.support.bases import DEBIAN, MadeWheel, archive, opened, push_image
from tests.support.command import Shell

FILE = """
import flyte

args = "--no-index --find-links wheels"
image = flyte.Image.from_debian_base(python_version=(3, 11)).with_pip_packages({packages}, extra_args=args).with_env_vars({{"A": "1"}})
env = flyte.TaskEnvironment(name="one", image=image)
other = flyte.TaskEnvironment(name="two", image=image)
plain = flyte.TaskEnvironment(name="plain")

@env.task
def a() -> int:
    return 1

@other.task
def b() -> int:
    return 1

@plain.task
def c() -> int:
    return 1
"""


@pytest.fixture
def built(flyte: Shell, repository: str) -> Shell:
    """A project with two environments that share an image, and a base in a registry."""
    push_image(repository, [archive(DEBIAN)])
    (flyte.project / "flyte.toml").write_text(f'[image]\nbase = "{repository}:latest"\n')
    MadeWheel().write(flyte.project / "wheels")
    MadeWheel(name="two", files={"two.py": b""}).write(flyte.project / "wheels")
    (flyte.project / "t.py").write_text(FILE.format(packages='"pkg"'))
    return flyte


def whats(image: dict[str, Any]) -> list[tuple[str, str]]:
    return [(layer["what"], layer["state"]) for layer in image["layers"]]


def test_build(built: Shell, repository: str) -> None:
    """A build reports its image and pins it in flyte.lock; the second one sends no request."""
    first = built.json("build", "t.py", "env")
    (image,) = first["images"]
    assert (image["env"], image["platform"], image["reference"]) == ("one", "linux/amd64", None)
    assert whats(image) == [("the base", "base"), ("packages pkg==1.0", "made")]
    assert "pkg" in (built.project / "flyte.lock").read_text()
    second = built.json("build", "--locked", "t.py", "env")
    assert second["images"][0]["digest"] == image["digest"]
    assert whats(second["images"][0])[1] == ("packages pkg==1.0", "cached")
    assert second["counters"]["requests"] == 0


def test_environments_share_an_image(built: Shell) -> None:
    """`--all` builds a shared image once, and names an environment that has no image."""
    done = built("-of", "json", "build", "--all", "t.py")
    images = json.loads(done.stdout)["images"]
    assert [each["env"] for each in images] == ["one", "two"]
    assert images[0]["digest"] == images[1]["digest"]
    assert "plain runs in the current interpreter" in done.stderr


def test_deleting_the_cache_changes_no_image(built: Shell, repository: str) -> None:
    """Without the cache, flyte.lock gives the same image, even if the base's tag has moved."""
    first = built.json("build", "t.py", "env")["images"][0]
    push_image(repository, [archive({**DEBIAN, "etc/new": b""})])
    built.home = built.home.with_name("elsewhere")
    assert built.json("build", "t.py", "env")["images"][0]["identity"] == first["identity"]


def test_push(built: Shell, repository: str) -> None:
    """A pushed image has its own tag, and another machine uses it without fetching a layer."""
    registry = f"{repository}/cache"
    image = built.json("build", "--push", "--registry", registry, "t.py", "env")["images"][0]
    assert image["reference"] == f"{registry}:image.one.{image['identity'][7:19]}"
    found = opened(registry).manifest(image["reference"].rpartition(":")[2])
    assert found is not None
    assert found.digest == image["digest"]
    built.home = built.home.with_name("elsewhere")
    other = built.json("build", "--registry", registry, "t.py", "env")
    assert other["images"][0]["digest"] == image["digest"]
    assert [node["from"] for node in other["nodes"] if node["kind"] == "image"] == [registry]
    assert other["counters"]["layers_made"] == 0
    assert other["counters"]["bytes_received"] < 10_000


def test_layers_that_others_have_made_are_used(built: Shell, repository: str) -> None:
    """A machine that adds a package builds and sends one layer, and fetches none of the others."""
    registry = f"{repository}/cache"
    MadeWheel(files={"pkg/data.txt": os.urandom(500_000).hex().encode()}).write(
        built.project / "wheels"
    )
    first = built.json("build", "--push", "--registry", registry, "t.py", "env")["images"][0]
    built.home = built.home.with_name("elsewhere")
    (built.project / "t.py").write_text(FILE.format(packages='"pkg", "two"'))
    second = built.json("build", "--push", "--registry", registry, "t.py", "env")
    (image,) = second["images"]
    assert whats(image)[1:] == [("packages pkg==1.0", "cached"), ("packages two==1.0", "made")]
    assert image["layers"][:2] == [
        {**layer, "state": now["state"]}
        for layer, now in zip(first["layers"], image["layers"], strict=False)
    ]
    assert second["counters"]["layers_made"] == 1
    assert second["counters"]["bytes_sent"] < 10_000
    found = opened(registry).manifest(image["reference"].rpartition(":")[2])
    assert found is not None
    assert [layer.digest for layer in found.layers] == [
        layer["digest"] for layer in image["layers"]
    ]
    assert (
        whats(built.json("build", "--registry", registry, "t.py", "env")["images"][0])[1][1]
        == "cached"
    )
    other = f"{repository}/other"
    moved = built.json("build", "--push", "--registry", other, "t.py", "env")["images"][0]
    assert moved["digest"] == image["digest"]


def test_push_where_the_declaration_says(built: Shell, repository: str) -> None:
    """An image is pushed to `image.registry`, or to its declaration's `registry`, by its name."""
    image = built.json("build", "--push", "t.py", "env", env={"FLYTE_IMAGE_REGISTRY": repository})[
        "images"
    ][0]
    assert image["reference"] == f"{repository}/one:{image['identity'][7:19]}"
    assert opened(f"{repository}/one").manifest(image["reference"].rpartition(":")[2])


def test_push_to_nowhere(built: Shell) -> None:
    """Without a registry the error names the setting."""
    error = built.json("build", "--push", "t.py", "env", exit_code=2)["error"]
    assert "registry" in error["hint"]


def test_platforms(built: Shell, repository: str) -> None:
    """An image for two platforms is pushed as an index of both."""
    two_platforms(built, repository, '("linux/amd64", "linux/arm64")')
    images = built.json("build", "--push", "--registry", f"{repository}/cache", "t.py", "env")[
        "images"
    ]
    assert [each["platform"] for each in images] == ["linux/amd64", "linux/arm64"]
    index = opened(f"{repository}/cache").manifest(images[0]["reference"].rpartition(":")[2])
    assert index is not None
    assert [each["platform"]["architecture"] for each in index.document["manifests"]] == [
        "amd64",
        "arm64",
    ]


def test_explain(built: Shell) -> None:
    """`--explain` builds nothing, and reports what would be built, with the reason."""
    done = built("build", "--explain", "t.py", "env")
    assert re.search(
        r"planned   image linux/amd64 \(.*flyte.lock does not pin .* yet\)", done.stderr
    )
    assert not (built.project / "flyte.lock").exists()
    built("build", "t.py", "env")
    (built.project / "t.py").write_text(FILE.format(packages='"pkg"').replace('"1"', '"2"'))
    assert (
        "planned   image linux/amd64 (env: 1 changed: A)"
        in built("build", "--explain", "t.py", "env").stderr
    )
    (node,) = built.json("build", "--explain", "t.py", "env")["nodes"]
    assert (node["name"], node["state"], node["why"]) == (
        "linux/amd64",
        "missing",
        "env: 1 changed: A",
    )
    (built.project / "t.py").write_text(FILE.format(packages='"pkg", "two"'))
    assert "(+two==1.0" in built("build", "t.py", "env").stderr


def two_platforms(built: Shell, repository: str, platforms: str) -> None:
    """Push a base for two platforms, and declare the image for these."""
    amd, arm = (
        push_image(repository, [archive(DEBIAN)]),
        push_image(repository, [archive(DEBIAN)], architecture="arm64", tag="arm"),
    )
    pairs = [
        (each.descriptor, {"os": "linux", "architecture": name})
        for each, name in ((amd, "amd64"), (arm, "arm64"))
    ]
    opened(repository).put_manifest(Manifest.of_platforms(pairs), "latest")
    declared = f"python_version=(3, 11), platform={platforms}"
    (built.project / "t.py").write_text(
        FILE.format(packages='"pkg"').replace("python_version=(3, 11)", declared)
    )


def test_explain_speaks_of_all_platforms(built: Shell, repository: str) -> None:
    """`--explain` reports all platforms, those after the first missing one too.

    It does so in words and as JSON, and shows those that are built.
    """
    two_platforms(built, repository, '("linux/arm64",)')
    identity = built.json("build", "t.py", "env")["images"][0]["identity"]
    two_platforms(built, repository, '("linux/amd64", "linux/arm64")')
    done = built("build", "--explain", "t.py", "env")
    found = built.json("build", "--explain", "t.py", "env")
    assert [(each["name"], each["state"]) for each in found["nodes"]] == [
        ("linux/amd64", "missing"),
        ("linux/arm64", "cached"),
    ]
    for node in found["nodes"]:
        assert (f"planned   image {node['name']} ({node['why']})" in done.stderr) == (
            node["state"] == "missing"
        )
    assert [(each["platform"], each["identity"]) for each in found["images"]] == [
        ("linux/amd64", None),
        ("linux/arm64", identity),
    ]
    assert "linux/amd64  to be built" in done.stdout and f"linux/arm64  {identity}" in done.stdout


def test_explain_pushes_nothing(built: Shell, repository: str) -> None:
    """`--explain` pushes nothing, even if the image is built."""
    built("build", "t.py", "env")
    built("build", "--explain", "--push", "--registry", f"{repository}/cache", "t.py", "env")
    assert list(opened(f"{repository}/cache").tags()) == []


def test_explain_goes_on_after_what_is_missing(built: Shell) -> None:
    """`--explain` also names steps whose base must be built first."""
    text = FILE.format(packages='"pkg"').replace(
        '.with_env_vars({"A": "1"})', '.with_commands(["echo one", "echo two"])'
    )
    (built.project / "t.py").write_text(text)
    built("lock", "t.py")
    done, nodes = (
        built("build", "--explain", "t.py", "env"),
        built.json("build", "--explain", "t.py", "env")["nodes"],
    )
    assert [(node["name"], node["state"], node["why"]) for node in nodes] == [
        ("linux/amd64", "missing", "first time"),
        ("echo one; echo two", "missing", "image linux/amd64 must be made first"),
        ("linux/amd64", "missing", "image echo one; echo two must be made first"),
    ]
    for node in nodes:
        assert f"planned   image {node['name']} ({node['why']})" in done.stderr


def test_locked(built: Shell) -> None:
    """With `--locked` nothing is resolved."""
    error = built.json("build", "--locked", "t.py", "env", exit_code=3)["error"]
    assert error["type"] == "NotLocked"


def test_looking_at_images(built: Shell, repository: str) -> None:
    """Local and remote images are listed and shown: layers, packages, sizes, and reasons."""
    assert built.json("get", "image") == []
    image = built.json("build", "--push", "--registry", f"{repository}/cache", "t.py", "env")[
        "images"
    ][0]
    (listed,) = built.json("get", "image")
    assert (listed["env"], listed["digest"], listed["packages"], listed["why"]) == (
        "one",
        image["digest"],
        ["pkg==1.0"],
        "first time",
    )
    for reference in ("one", image["identity"][7:19], image["digest"], image["reference"]):
        shown = built.json("image", "inspect", reference)
        assert shown["packages"] == ["pkg==1.0"]
        assert shown["variables"]["A"] == "1"
        assert shown["size"] == sum(layer["size"] for layer in image["layers"])
    assert "packages pkg==1.0" in built("image", "inspect", "one").stdout
    assert (
        built.json("image", "inspect", "nothing-here", exit_code=4)["error"]["type"] == "NotFound"
    )


@pytest.mark.slow
def test_looking_at_an_image_for_several_platforms(built: Shell, repository: str) -> None:
    """All platforms of an image are listed, and this machine's or the requested one is shown.

    That holds for local images and for those in a registry.
    """
    two_platforms(built, repository, '("linux/amd64", "linux/arm64")')
    images = built.json("build", "--push", "--registry", f"{repository}/cache", "t.py", "env")[
        "images"
    ]
    identities = {each["platform"]: each["identity"] for each in images}
    for reference in ("one", images[0]["digest"], images[0]["reference"], f"{repository}:latest"):
        for platform, asked in (
            (linux_here(), []),
            *((each, ["--platform", each]) for each in identities),
        ):
            shown = built.json("image", "inspect", *asked, reference)
            assert (shown["platform"], shown["platforms"]) == (platform, [*identities])
            assert reference.endswith(":latest") or shown["identity"] == identities[platform]
        assert "linux/amd64, linux/arm64" in built("image", "inspect", reference).stdout
        error = built.json("image", "inspect", "--platform", "linux/s390x", reference, exit_code=4)[
            "error"
        ]
        assert "linux/amd64, linux/arm64" in error["why"]
    alone = built.json("image", "inspect", identities["linux/arm64"])
    assert (alone["platform"], alone["platforms"]) == ("linux/arm64", ["linux/arm64"])


def test_from_python(built: Shell, repository: str) -> None:
    """`flyte.build_images` builds the images of `flyte build`, and `flyte.build` any image."""
    expected = built.json("build", "t.py", "env")["images"][0]["digest"]
    script = built.project / "script.py"
    code = (
        "import flyte, t\nif __name__ == '__main__':\n   "
        " print(flyte.build_images(t.env)['one'].digest, flyte.build(t.image).digest)\n"
    )
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=built.project,
        env=built.environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [expected, expected], done.stderr


def test_environment_without_tasks(built: Shell) -> None:
    """An environment without tasks has its image built, but cannot be deployed.

    The image is also built for an environment that depends on it.
    """
    image = FILE.format(packages='"pkg"').partition("other =")[0]
    (built.project / "shared.py").write_text(image)
    uses = (
        "import flyte, shared\nmain = flyte.TaskEnvironment('main',"
        " depends_on=[shared.env])\n@main.task\ndef a() -> None: ...\n"
    )
    (built.project / "uses.py").write_text(uses)
    for arguments in (
        ["shared.py", "env"],
        ["shared.py"],
        ["--all", "shared.py"],
        ["uses.py", "main"],
        ["--all", "uses.py"],
    ):
        assert [each["env"] for each in built.json("build", *arguments)["images"]] == ["one"]
    build = "print(*flyte.build_images(shared.env), *flyte.build_images(uses.main))"
    (built.project / "script.py").write_text(
        f"import flyte, shared, uses\nif __name__ == '__main__':\n    {build}\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=built.project,
        env=built.environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["one", "one"], done.stderr
    assert "has no tasks" in built("deploy", "shared.py", "env", exit_code=2).stderr


def test_copied_source(built: Shell) -> None:
    """Files that the declaration copies are relative to the project's root."""
    (built.project / "src").mkdir()
    (built.project / "src/x.py").write_text("x")
    image = (
        'image = flyte.Image.from_debian_base(python_version=(3, 11)).with_source_folder("src",'
        ' "/app")\n'
    )
    (built.project / "t.py").write_text(
        f"import flyte\n{image}env = flyte.TaskEnvironment(name='one', image=image)\n@env.task\ndef"
        " a(): ...\n"
    )
    assert whats(built.json("build", "t.py", "env")["images"][0])[1:] == [
        ("files src -> /app/src", "made")
    ]


def test_image_that_exists(built: Shell) -> None:
    """An environment whose image is a reference needs no build, which is reported."""
    (built.project / "t.py").write_text(
        "import flyte\nenv = flyte.TaskEnvironment(name='one',"
        " image='example.com/x:1')\n@env.task\ndef a(): ...\n"
    )
    done = built("-of", "json", "build", "t.py", "env")
    assert json.loads(done.stdout)["images"] == []
    assert "one runs in example.com/x:1 unchanged" in done.stderr


def test_no_heavy_imports(built: Shell) -> None:
    """Help loads no library for images."""
    code = (
        "import sys; from flyte_build.cli.main import run_command; run_command(['build', '--help'],"
        " None); print(sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True
    )
    assert not {"requests", "oras", "docker", "installer", "tenacity", "packaging"} & set(
        done.stdout.replace("'", "").split(", ")
    )


def test_folder(built: Shell) -> None:
    """Return all files below a directory."""
    Path(built.project / "sub").mkdir()
    (built.project / "tasks.py").unlink()
    assert [each["env"] for each in built.json("build", "-r", ".")["images"]] == ["one", "two"]
