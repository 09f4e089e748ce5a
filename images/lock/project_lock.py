"""Pins in use: entries of flyte.lock are used, missing ones are resolved, recorded and noted."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from threading import RLock

from flyte_build.cas.digest import Digest
from flyte_build.cas.lease import locked_folder
from flyte_build.errors import DeclarationError, FileUnstable, ImageBuildError, NotLocked
from flyte_build.images.platforms import PYTHON
from flyte_build.images.recipe import Recipe
from flyte_build.text.wording import listed, plural

from .lockfile import NAME, Lock, dump, read, write
from .pins import LockedPackages, PinnedBase, PinnedStep, Wanted, Wheel
from .requirements import RequirementsReader
from .uv import Uv

_OLDEST = 11  # Minor version of the oldest Python that tasks run with.


class Pins:
    """The pins of one project root; missing ones are resolved, noted and written to flyte.lock.

    With `locked`, a missing pin raises `NotLocked` instead. `note` receives sentences for the user.
    `look_up` resolves a reference in its registry, and finds the Python version inside if its
    second argument is true. Safe to use from several threads.
    """

    def __init__(
        self,
        root: str,
        note: Callable[[str], None],
        *,
        locked: bool,
        look_up: Callable[[str, bool], PinnedBase],
    ) -> None:
        self.root, self.path = root, f"{root}/{NAME}"
        self._note, self.locked, self.look_up = note, locked, look_up
        self.uv = Uv()
        self._reading = RequirementsReader(root)
        self._alone = RLock()
        self._loaded: Lock | None = None
        self._bytes = b""
        self._news: list[str] = []

    def known(self) -> Pins:
        """Return the same pins in a variant that resolves nothing."""
        known = Pins(self.root, self._note, locked=True, look_up=self.look_up)
        known._loaded, known._bytes = self.lock, self._bytes
        return known

    @property
    def lock(self) -> Lock:
        """All pins of the project, read from flyte.lock at the first access."""
        if self._loaded is None:
            self._loaded, self._bytes = read(self.path)
        return self._loaded

    @property
    def seen(self) -> dict[str, Digest]:
        """Digests of all files read so far, by path below the root: flyte.lock and requirements."""
        assert self._loaded is not None
        return {NAME: Digest.of(self._bytes), **self._reading.read}

    def python(self, recipe: Recipe) -> str:
        """Return the minor version of the Python in an image.

        It is the declared one, that of the pinned base, or the pinned default. It is "" for a base
        without Python, and for an image from a Dockerfile, whose Python is only known after its
        build.
        """
        if recipe.base.kind == "dockerfile":
            return ""
        if recipe.base.kind == "reference":
            return self.base(recipe.base.uri, with_python=True).python
        return recipe.base.python or self._of_script(recipe) or self._meant()

    def packages(self, recipe: Recipe, python: str, platform: str) -> LockedPackages:
        """Return the wheels of an image, for one Python and one platform.

        Raises `NotLocked` for a missing pin with `locked`, and `ImageBuildError` if resolving
        fails.
        """
        if not python and recipe.sources and recipe.base.kind == "reference":
            raise ImageBuildError(
                f"The image {recipe.base.uri} has no Python",
                why="It has no python3 on its PATH.",
                hint="Choose a base with Python 3.11 or newer.",
            )
        wanted = self.wanted(recipe, python, platform)
        if found := self.lock.locked(wanted):
            return found
        if not wanted.requirements:
            return LockedPackages(wanted=wanted, wheels=())
        self._refuse(f"the packages {wanted}")
        found = self.resolve(recipe, wanted)
        self._add(
            Lock(packages=(found,)),
            f"{wanted}: {plural(len(found.wheels), 'package')}",
        )
        return self.lock.locked(wanted) or found  # Another process may have pinned it first.

    def wanted(self, recipe: Recipe, python: str, platform: str) -> Wanted:
        """Return the request that an image's wheels are pinned under."""
        return self._reading.wanted(recipe.sources, python, platform)

    def resolve(
        self, recipe: Recipe, wanted: Wanted, upgrade: Collection[str] | None = ()
    ) -> LockedPackages:
        """Resolve the packages of an image anew, without recording the result.

        Pinned versions are preferred, except those of the packages in `upgrade` (None: of all).
        Raises `FileUnstable` if a requirements file changes meanwhile, and `ImageBuildError`.
        """
        from .resolve import resolve

        preferred = (
            []
            if upgrade is None
            else [wheel for wheel in self._preferred(wanted) if wheel.name not in upgrade]
        )
        found = LockedPackages(
            wanted=wanted, wheels=resolve(wanted, recipe.sources, self.root, self.uv, preferred)
        )
        if self.wanted(recipe, wanted.python, wanted.platform) != wanted:
            raise FileUnstable(
                "Requirements files changed while they were being read",
                hint="Run the command again.",
            )
        return found

    def base(self, reference: str, with_python: bool = False) -> PinnedBase:
        """Return the pin of a base image, with the Python version inside if `with_python`.

        Raises `NotLocked` for a missing pin with `locked`, and the errors of `look_up`.
        """
        found = self.lock.base(reference)
        if found and (found.python or not with_python):
            return found
        if found is None:
            self._refuse(f"the image {reference}")
            new = self.look_up(reference, with_python)
        else:  # The digest determines the Python, so nothing is resolved.
            new = replace(
                self.look_up(f"{reference.partition('@')[0]}@{found.digest}", True),
                reference=reference,
            )
        if new != found and not self.locked:
            self._add(Lock(bases=(new,)), reference)
        return new

    def step(self, key: str, platform: str) -> PinnedStep | None:
        """Return the pinned result of a command, or None."""
        return self.lock.step(key, platform)

    def step_by_now(self, key: str, platform: str) -> PinnedStep | None:
        """Return the pinned result of a command, or None, from a fresh read of flyte.lock.

        Another process may have pinned it since the first read.
        """
        return read(self.path)[0].step(key, platform)

    def keep_step(self, step: PinnedStep) -> None:
        """Pin the result of a command; raises `NotLocked` with `locked`."""
        self._refuse("the result of its commands")
        self._add(Lock(steps=(step,)), "the result of commands")

    def save(self) -> None:
        """Note all pins added since the last call, as one sentence.

        The pins are in flyte.lock already.
        """
        with self._alone:
            news, self._news = self._news, []
        if news:
            self._note(
                f"Resolved and pinned in {NAME} (commit it): {listed(dict.fromkeys(news), 5)}."
            )

    def replace(self, change: Callable[[Lock], Lock]) -> None:
        """Apply a change to the pins and write flyte.lock, under the lock of its directory."""
        with self._alone, locked_folder(self.root):
            before, self._bytes = read(self.path)
            self._loaded = change(before)
            # Entries in another order are not a change: the file is always sorted.
            if self._loaded != before and dump(self._loaded) != dump(before):
                write(self.path, self._loaded)
                self._loaded, self._bytes = read(self.path)

    def _add(self, new: Lock, what: str) -> None:
        self.replace(lambda before: before.adding(new))
        with self._alone:
            self._news.append(what)

    def _refuse(self, what: str) -> None:
        if self.locked:
            raise NotLocked(
                f"{NAME} does not pin {what}",
                why="With --locked, nothing is resolved.",
                hint=f"Run `flyte lock` and commit {NAME}.",
            )

    def _preferred(self, wanted: Wanted) -> list[Wheel]:
        """Return the pinned version of each package, from the requests most similar to `wanted`."""

        def likeness(each: LockedPackages) -> tuple[bool, bool, int]:
            same = (each.python == wanted.python, each.platform == wanted.platform)
            return (*same, len({*each.wanted.requirements} & {*wanted.requirements}))

        found: dict[str, Wheel] = {}
        for packages in sorted(self.lock.packages, key=likeness, reverse=True):
            for wheel in packages.wheels:
                found.setdefault(wheel.name, wheel)
        return list(found.values())

    def _of_script(self, recipe: Recipe) -> str:
        """Return the Python that a script's metadata requires; "" if it requires none.

        It is the pinned default if that is allowed, else the oldest allowed version.
        """
        script = next((source.file for source in recipe.sources if source.kind == "uv_script"), "")
        asked = str(self._reading.script(script).get("requires-python", "")) if script else ""
        if not asked:
            return ""
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        try:
            specifiers = SpecifierSet(asked)
        except InvalidSpecifier:
            raise DeclarationError(
                f"requires-python in {script} must be a version specifier, not {asked!r}"
            ) from None
        may = [
            f"3.{minor}"
            for minor in range(_OLDEST, 30)
            if any(f"3.{minor}.{patch}" in specifiers for patch in range(30))
        ]
        if not may:
            raise ImageBuildError(
                f"{script} requires Python {asked}", why="Tasks run with Python 3.11 or newer."
            )
        meant = self.lock.python or PYTHON
        if meant not in may:
            return may[0]
        return self._meant()

    def _meant(self) -> str:
        """Return the default minor version of Python.

        It is the pinned one, or this interpreter's, which is then pinned.
        """
        if not self.lock.python:
            self._refuse("a default version of Python")
            self._add(Lock(python=PYTHON), f"Python {PYTHON}")
        return self.lock.python
