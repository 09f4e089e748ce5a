"""Node of a local environment: an image's packages as a virtual environment on this machine.

The `process` engine uses it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.records import Record
from flyte_build.cas.traces import recall
from flyte_build.errors import ImageBuildError, NotLocked
from flyte_build.graph.node import FIRST_TIME, Lookup, Made, Node, Outcomes, RecordStore, Resolve
from flyte_build.images.platforms import PYTHON, architecture, here

if TYPE_CHECKING:
    from flyte_build.images.image_choice import ImageChoice
    from flyte_build.images.layers.wheel_download import Progress
    from flyte_build.images.lock.pins import Wheel
    from flyte_build.images.lock.project_lock import Pins
    from flyte_build.images.lock.uv import Uv
    from flyte_build.images.recipe import Recipe

_KEPT = 16  # Remembered states of flyte.lock and of requirements files for one image.


class EnvironmentNode(Node):
    """Local environment of an image of the project at `root`.

    The artifact's digest names its directory. It is looked up by the bytes of flyte.lock and of the
    files that the image names; if these are unchanged, nothing is parsed. `name` is that of the
    first `TaskEnvironment` with the image. `pins` is called only when pins are needed. `progress`
    is called with the bytes of wheels that were fetched, and their total.
    """

    kind = "environment"
    remembers = True  # Whether a lookup stores a trace of the files that it read.

    def __init__(
        self,
        name: str,
        image: ImageChoice,
        root: str,
        cache: Cache,
        pins: Callable[[], Pins],
        needs: tuple[Node, ...],
    ) -> None:
        super().__init__(name, f"environment:{root}/{name}", needs)
        self._image, self._root, self._cache, self._pins = image, root, cache, pins
        self._declared: dict[str, Value] = {
            "image": image.text,
            "python": PYTHON,
            "platform": here(),
        }
        self._base = key(self.kind, self.format, self._declared)
        self._seen: Mapping[str, Digest] = {}
        self.progress: Progress = lambda done, total: None

    @property
    def recipe(self) -> Recipe:
        """The recipe of the image."""
        return self._image.recipe

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables of the image."""
        return self._image.variables

    def refusal(self) -> str:
        """Return why the image cannot be installed locally, as a phrase, or "".

        It may have to inspect the base image.
        """
        return (
            ""
            if self._known
            else why_not_local(self.recipe, lambda: self._pins().python(self.recipe))
        )

    @cached_property
    def _known(self) -> Record | None:
        """The record from a time when flyte.lock and all files were as they are now, or None."""
        return recall(self._cache.records, self._base, self._root, _KEPT)

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Return the pinned wheels; raises `NotLocked` if they are not pinned."""
        known = self._pins().known()
        locked = known.packages(self.recipe, known.python(self.recipe), here())
        self._seen = known.seen
        return environment_inputs(locked.python, locked.platform, locked.wheels)

    def look_up(self, memory: RecordStore, outcomes: Outcomes) -> Lookup:
        """Return the environment of the pinned wheels, or the reason there is none."""
        if self._known and self.usable(self._known):
            return Lookup(self._known.inputs, self._known)
        try:
            found = super().look_up(memory, outcomes)
        except NotLocked:
            return Lookup(
                self._declared,
                None,
                "its packages are not locked yet" if memory.last(self.label) else FIRST_TIME,
            )
        if found.record and self.remembers:
            self._cache.records.add_trace(self._base, found.record.key, self._seen, _KEPT)
        return found

    def usable(self, record: Record) -> bool:
        """Whether the environment exists, unmodified."""
        from .venv import is_complete

        return is_complete(self._cache.environment(record.artifact))

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """Return which packages were added, removed or updated."""
        return difference(last.inputs, inputs)

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Resolve missing pins, and install all packages.

        Raises `ImageBuildError`.
        """
        pins = self._pins()
        locked = pins.packages(self.recipe, pins.python(self.recipe), here())
        pins.save()
        inputs, last = self.inputs(outcomes), self._cache.records.last(self.label)
        made = install(
            self._cache, locked.python, locked.wheels, self._root, pins.uv, self.progress
        )
        self._cache.records.add_trace(self._base, made.key, self._seen, _KEPT)
        return Made(
            made.artifact, made.refs, inputs, difference(last.inputs, inputs) if last else ""
        )

    def stop(self) -> None:
        """Stop a running resolution or installation."""
        self._pins().uv.stop()


def why_not_local(recipe: Recipe, python: Callable[[], str]) -> str:
    """Return why an image cannot be installed as a local environment, as a phrase, or "".

    `python` returns the minor version of the image's Python, or "" if there is none; it is called
    only if nothing else rules the image out.
    """
    from flyte_build.images.recipe import Copy

    if recipe.executes:
        return f"it runs {recipe.executes}"
    if any(isinstance(step, Copy) for step in recipe.steps):
        return "it copies files into the image"
    if recipe.platforms and not any(
        architecture(each) == architecture(here()) for each in recipe.platforms
    ):
        return f"it is for {' and '.join(recipe.platforms)}, but this machine is {here()}"
    if recipe.base.kind == "reference" and not recipe.sources:
        return f"the content of {recipe.base.uri} is only in its container"
    found = python()
    if not found:
        return f"{recipe.base.uri} has no Python of its own"
    return "" if found == PYTHON else f"it has Python {found}, but flyte runs with {PYTHON}"


def environment_inputs(python: str, platform: str, wheels: Iterable[Wheel]) -> Mapping[str, Value]:
    """Return the inputs of an environment: Python, platform, and packages with their digests."""
    packages = {f"{wheel.name}=={wheel.version}": wheel.digest for wheel in wheels}
    return {"python": python, "platform": platform, "packages": packages}


def install(
    cache: Cache,
    python: str,
    wheels: Sequence[Wheel],
    root: str,
    uv: Uv,
    progress: Progress = lambda done, total: None,
) -> Record:
    """Install an environment of wheels for this machine, unless it exists, and return its record.

    The record is not stored yet. Relative paths of wheels start at `root`. `progress` is called
    with the bytes fetched so far, and their total. Raises `ImageBuildError`.
    """
    from flyte_build.cas.counters import Counters
    from flyte_build.images.layers.wheel_download import Fetcher

    from .venv import is_complete, make

    inputs = environment_inputs(python, here(), wheels)
    own = key(EnvironmentNode.kind, EnvironmentNode.format, inputs)
    artifact = Digest(own)
    folder = cache.environment(artifact)
    if not is_complete(folder):
        if os.path.exists(f"{folder}/venv") and artifact in cache.leased():
            raise ImageBuildError(
                "Cannot reinstall the environment of this image while a task runs in it",
                why="Its packages were modified after they were installed.",
                hint=(
                    "Wait until the task has ended, or end it with `flyte abort RUN`. Then run the"
                    " command again."
                ),
            )
        fetcher = Fetcher(root, cache.blobs, Counters(), progress, lambda: uv.is_stopped)
        make(folder, wheels, root, uv, fetcher)
    return Record(own, EnvironmentNode.kind, artifact, (artifact,), inputs)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Return how the packages of two environments differ.

    Examples: `+numpy==2.3.1`, `-six==1.17.0`, `idna 3.10 -> 3.11`.
    """
    before, now = (
        dict(each.split("==", 1) for each in inputs.get("packages", ())) for inputs in (old, new)
    )
    parts = [
        f"{name} {before[name]} -> {now[name]}"
        for name in sorted(now)
        if before.get(name, now[name]) != now[name]
    ]
    parts += [f"+{name}=={now[name]}" for name in sorted(now.keys() - before.keys())]
    parts += [f"-{name}=={before[name]}" for name in sorted(before.keys() - now.keys())]
    if old.get("python") != new.get("python"):
        parts.append(f"Python {old.get('python')} -> {new.get('python')}")
    from flyte_build.text.wording import listed

    return listed(parts, 8) if parts else "its wheels changed"
