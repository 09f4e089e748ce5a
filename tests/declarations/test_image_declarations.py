"""`flyte.Image` declarations: immutable values, refusals, and the resulting recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyte_build.declarations.image import Image
from flyte_build.declarations.serialize import image_value
from flyte_build.errors import DeclarationError
from flyte_build.images.image_choice import ImageChoice
from flyte_build.images.recipe import (
    BaseStep,
    Copy,
    Execute,
    Packages,
    Recipe,
    Source,
    named,
)
from tests.support.command import Shell

pytestmark = pytest.mark.quick

ROOT = "/srv/project"
DEBIAN = Image.from_debian_base()


def value(image: Image) -> Any:
    """Return the image as discovery stores it."""
    return json.loads(json.dumps(image_value(image, ROOT)))


def recipe(image: Image) -> Recipe:
    """Return the recipe that the builders get."""
    return Recipe.of(value(image))


def test_every_method_gives_a_new_image() -> None:
    """Every method returns a new image, and equal declarations are equal."""
    changed = [
        DEBIAN.with_pip_packages("a"),
        DEBIAN.with_requirements("r.txt"),
        DEBIAN.with_uv_project("pyproject.toml"),
        DEBIAN.with_pyproject("pyproject.toml"),
        DEBIAN.with_apt_packages("curl"),
        DEBIAN.with_commands(["true"]),
        DEBIAN.with_env_vars({"A": "b"}),
        DEBIAN.with_workdir("/srv"),
        DEBIAN.with_source_file("a.txt"),
        DEBIAN.with_source_folder("data"),
        DEBIAN.with_code_bundle(),
        DEBIAN.with_dockerignore(".dockerignore"),
        DEBIAN.clone(name="other"),
        DEBIAN.clone(python_version=(3, 12)),
        DEBIAN.clone(base_image="python:3.12"),
    ]
    assert len({*changed, DEBIAN}) == len(changed) + 1
    assert (
        Image.from_debian_base() == DEBIAN == DEBIAN.with_local_v2() == DEBIAN.with_pip_packages()
    )
    assert DEBIAN.with_pip_packages("a").with_apt_packages(
        "b"
    ) == Image.from_debian_base().with_pip_packages("a").with_apt_packages("b")


def test_no_two_declarations_are_mixed_up() -> None:
    """Packages of different kinds, and names that are joined otherwise, are different images."""
    images = [
        DEBIAN.with_pip_packages("curl"),
        DEBIAN.with_apt_packages("curl"),
        DEBIAN.with_commands(["curl"]),
        DEBIAN.with_pip_packages("ab", "c"),
        DEBIAN.with_pip_packages("a", "bc"),
        DEBIAN.with_env_vars({"step": "x"}),
        DEBIAN.with_env_vars({"A": "1", "B": "2"}),
        DEBIAN.with_env_vars({"A": "1"}),
    ]
    assert len({json.dumps(value(image)) for image in images}) == len(images)
    assert recipe(images[5]).env == {"step": "x"}


def test_layers_come_in_the_order_that_keeps_most() -> None:
    """Layers are in an order that keeps most of them.

    Debian's packages come first, all Python packages where the first ones are declared, files and
    commands in their own places.
    """
    image = (
        DEBIAN.with_source_file("one.txt", "/one.txt")
        .with_pip_packages("a")
        .with_commands(["make"])
        .with_requirements("more.txt")
        .with_apt_packages("gcc", "curl")
        .with_source_folder("data", "/srv")
        .with_apt_packages("bzip2")
    )
    found = recipe(image)
    assert found.steps == (
        Execute(apt=("bzip2", "curl", "gcc")),
        Copy("one.txt", "/one.txt", False),
        Packages(),
        Execute(commands=("make",)),
        Copy("data", "/srv/data", True),
    )
    assert [source.kind for source in found.sources] == ["packages", "requirements"]
    assert found.executes == "apt-get install bzip2 curl gcc"


def test_paths_below_the_root_are_relative_to_it() -> None:
    """A path below the root becomes relative, so that all checkouts have the same declaration.

    Strings that are not paths stay as they are.
    """
    image = (
        DEBIAN.with_requirements(Path(ROOT, "sub", "r.txt"))
        .with_source_folder(f"{ROOT}/data", copy_contents_only=True)
        .with_env_vars({"HOME_OF_IT": f"{ROOT}/x"})
        .with_commands([f"ls {ROOT}/x"])
        .with_pip_packages(f"{ROOT}/pkg", "pkg")
    )
    found = recipe(image)
    assert found.sources[1].packages == ("./pkg", "pkg")
    assert found.sources[0].file == "sub/r.txt"
    assert Copy("data", ".", True) in found.steps
    assert found.env == {"HOME_OF_IT": f"{ROOT}/x"}


def test_a_base_says_what_it_stands_on() -> None:
    """Each kind of base keeps its own options."""
    assert recipe(Image.from_debian_base((3, 12), platform="linux/arm64")).base == BaseStep(
        kind="debian", python="3.12"
    )
    assert recipe(Image.from_debian_base(platform=("linux/arm64", "linux/amd64"))).platforms == (
        "linux/amd64",
        "linux/arm64",
    )
    assert Recipe.of(value(Image.from_base("python:3.12"))).base == BaseStep(
        kind="reference", uri="python:3.12"
    )
    dockerfile = recipe(
        Image.from_dockerfile(Path(ROOT, "Dockerfile"), registry="registry.example.com/a", name="b")
    )
    assert (dockerfile.base.file, dockerfile.registry, dockerfile.name) == (
        "Dockerfile",
        "registry.example.com/a",
        "b",
    )
    script = recipe(Image.from_uv_script("train.py", name="train", pre=True))
    assert script.sources == (Source(kind="uv_script", file="train.py", options={"pre": True}),)
    assert script.steps == (Packages(),)
    assert recipe(DEBIAN.with_workdir("/srv").with_workdir("app")).workdir == "/srv/app"


def test_a_name_stands_for_a_configured_reference() -> None:
    """`from_ref_name` takes the reference from the configuration; the error shows how to set it."""
    image = value(Image.from_ref_name("cuda"))
    assert named(image, {"cuda": "nvidia/cuda:12"}) == "nvidia/cuda:12"
    assert named("auto", {}) == "auto" and named("auto", {"default": "a:1"}) == "a:1"
    more = named(value(Image.from_ref_name("cuda").with_pip_packages("a")), {"cuda": "c:1"})
    assert Recipe.of(more).base.uri == "c:1" and Recipe.of(more).sources
    with pytest.raises(DeclarationError, match=r"--image cuda=URI"):
        named(image, {"other": "x"})


@pytest.mark.parametrize(
    ("declare", "what"),
    [
        (lambda: Image.from_base("not one"), "takes the reference of an image"),
        (lambda: Image.from_debian_base((3, 9)), "3.11 or newer"),
        (lambda: Image.from_debian_base("3.12"), r"a \(major, minor\) tuple"),  # type: ignore[arg-type]
        (lambda: Image.from_debian_base(platform="windows"), "Images are built for Linux only"),  # type: ignore[arg-type]
        (lambda: Image.from_base("a:1").clone(python_version=(3, 12)), "requires a Debian base"),
        (lambda: DEBIAN.with_pip_packages(["a", "b"]), r"with_pip_packages\(\*names\)"),  # type: ignore[arg-type]
        (lambda: DEBIAN.with_pip_packages("-r x.txt"), "files to with_requirements"),
        (lambda: DEBIAN.with_pip_packages(" "), "empty string"),
        (
            lambda: DEBIAN.with_pip_packages("a", index_url="https://me:secret@host/simple"),
            "must not contain credentials",
        ),
        (
            lambda: DEBIAN.with_pip_packages("a", extra_args="--index https://token@host/simple"),
            "must not contain credentials",
        ),
        (
            lambda: DEBIAN.with_pip_packages("a @ https://token@host/a.whl"),
            "must not contain credentials",
        ),
        (lambda: DEBIAN.with_commands("ls"), r"with_commands\(\['ls'\]\)"),
        (lambda: DEBIAN.with_env_vars({"A B": "c"}), "is not a valid variable name"),
        (lambda: DEBIAN.with_env_vars({"A": 1}), "must be a string"),  # type: ignore[dict-item]
        (lambda: DEBIAN.with_requirements(""), "is not a path"),
        (
            lambda: DEBIAN.with_uv_project("p.toml", project_install_mode="all"),  # type: ignore[arg-type]
            "Unknown project_install_mode",
        ),
    ],
)
def test_a_mistake_is_told_where_it_is_made(declare: Callable[[], Image], what: str) -> None:
    """A mistake in a declaration is an error at once, and not in a later build."""
    with pytest.raises(DeclarationError) as error:
        declare()
    import re

    assert re.search(what, str(error.value))
    assert "secret" not in str(error.value) and "token" not in str(error.value)


def test_what_nothing_acts_on_is_known() -> None:
    """Unused options are kept with the declaration, and reported."""
    image = DEBIAN.with_pip_packages("a", secret_mounts="pip").with_uv_project(
        "p.toml", project_install_mode="install_project"
    )
    assert ImageChoice(value(image)).unused_options == ["install_project", "secret_mounts"]
    assert ImageChoice("python:3.12").unused_options == []


def test_the_image_option_wins_over_the_configuration(flyte: Shell) -> None:
    """`--image` overrides the configuration, and must be URI or NAME=URI."""
    declared = 'flyte.TaskEnvironment("t", image=flyte.Image.from_ref_name("base"))'
    (flyte.project / "tasks.py").write_text(
        f"import flyte\nenv = {declared}\n@env.task\ndef main() -> int:\n    return 1\n"
    )
    assert (
        "No image named 'base' is configured"
        in flyte("run", "tasks.py", "main", exit_code=2).stderr
    )
    assert (
        "is not an image" in flyte("run", "--image", "a=", "tasks.py", "main", exit_code=2).stderr
    )
    told = flyte(
        "run",
        "--engine",
        "process",
        "--image",
        "base=a/b:1",
        "tasks.py",
        "main",
        exit_code=3,
        env={"FLYTE_IMAGE_IMAGE_REFS": "base=c/d:1"},
    )
    assert "a/b:1 is only in its container" in told.stderr
