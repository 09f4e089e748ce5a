"""Pins in use: what is in flyte.lock is taken, what is missing is resolved, kept
there, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from threading import RLock

from flyte_build.cas.digest import Digest
from flyte_build.cas.lease import locked_folder
from flyte_build.errors import DeclarationError, FileUnstable, ImageBuildError, NotLocked
from flyte_build.images.platforms import PYTHON
from flyte_build.images.recipe import Recipe
from flyte_build.text.wording import listed

from .lockfile import NAME, Lock, dump, read, write
from .pins import LockedPackages, PinnedBase, PinnedStep, Wanted, Wheel
from .requirements import RequirementsReader
from .uv import Uv

_OLDEST = 11  # The minor version of the oldest Python that tasks run with.


class Pins:
    """The pins of one project root. Resolves what is missing, says so, and writes flyte.lock; with
    `locked` it raises `NotLocked` instead.

    `note` is told sentences, and `look_up` says what a reference names now, and if asked to which
    Python is in it. May be used by several threads.
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
        """The same pins, of which nothing is resolved."""
        known = Pins(self.root, self._note, locked=True, look_up=self.look_up)
        known._loaded, known._bytes = self.lock, self._bytes
        return known

    @property
    def lock(self) -> Lock:
        """What is pinned."""
        if self._loaded is None:
            self._loaded, self._bytes = read(self.path)
        return self._loaded

    @property
    def seen(self) -> dict[str, Digest]:
        """The digests of all files that decided something so far, by path below the root:
        flyte.lock, and what declarations name.
        """
        assert self._loaded is not None
        return {NAME: Digest.of(self._bytes), **self._reading.read}

    def python(self, recipe: Recipe) -> str:
        """The minor version of the Python that an image has: the declared one, that of its pinned
        base, or the one that is pinned.

        "" for what a Dockerfile builds: that is known when it is built, and for a base without
        Python.
        """
        if recipe.base.kind == "dockerfile":
            return ""
        if recipe.base.kind == "reference":
            return self.base(recipe.base.uri, with_python=True).python
        return recipe.base.python or self._of_script(recipe) or self._meant()

    def packages(self, recipe: Recipe, python: str, platform: str) -> LockedPackages:
        """The wheels of an image, for a Python and a platform. Raises `NotLocked`, and
        `ImageBuildError` for what cannot be resolved.
        """
        if not python and recipe.sources and recipe.base.kind == "reference":
            raise ImageBuildError(
                f"The image {recipe.base.uri} has no Python",
                why="It has no python3 on its PATH.",
                hint="Name a base with Python 3.11 or newer.",
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
            f"{wanted}: {len(found.wheels)} package{'s' if len(found.wheels) != 1 else ''}",
        )
        return self.lock.locked(wanted) or found  # Another process's, if it was first.

    def wanted(self, recipe: Recipe, python: str, platform: str) -> Wanted:
        """What an image asks for, under which its wheels are pinned."""
        return self._reading.wanted(recipe.sources, python, platform)

    def resolve(
        self, recipe: Recipe, wanted: Wanted, upgrade: Collection[str] | None = ()
    ) -> LockedPackages:
        """What an image wants, resolved anew and not kept: pinned versions stay where they fit, but
        for those of `upgrade` (None: all).
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
                "Files of requirements changed while they were read", hint="Run the command again."
            )
        return found

    def base(self, reference: str, with_python: bool = False) -> PinnedBase:
        """What a reference names, and if need be the Python in it. Raises `NotLocked`, and what
        looking it up raises.
        """
        found = self.lock.base(reference)
        if found and (found.python or not with_python):
            return found
        if found is None:
            self._refuse(f"the image {reference}")
            new = self.look_up(reference, with_python)
        else:  # The digest says which Python it is: nothing is resolved.
            new = replace(
                self.look_up(f"{reference.partition('@')[0]}@{found.digest}", True),
                reference=reference,
            )
        if new != found and not self.locked:
            self._add(Lock(bases=(new,)), reference)
        return new

    def step(self, key: str, platform: str) -> PinnedStep | None:
        """What executing something came to, if that is known."""
        return self.lock.step(key, platform)

    def step_by_now(self, key: str, platform: str) -> PinnedStep | None:
        """The same, as flyte.lock has it at this moment: another command may have pinned it."""
        return read(self.path)[0].step(key, platform)

    def keep_step(self, step: PinnedStep) -> None:
        """Pin what executing something came to."""
        self._refuse("what its commands come to")
        self._add(Lock(steps=(step,)), "what commands came to")

    def save(self) -> None:
        """All is in flyte.lock when this returns; what was resolved since the last time is said,
        once.
        """
        with self._alone:
            news, self._news = self._news, []
        if news:
            self._note(
                f"Resolved, and kept in {NAME} (commit it): {listed(dict.fromkeys(news), 5)}."
            )

    def replace(self, change: Callable[[Lock], Lock]) -> None:
        """Change all pins at once."""
        with self._alone, locked_folder(self.root):
            before, self._bytes = read(self.path)
            self._loaded = change(before)
            # Its order is none: the file has one of its own.
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
                why="With --locked nothing is resolved.",
                hint=f"Run `flyte lock`, and commit {NAME}.",
            )

    def _preferred(self, wanted: Wanted) -> list[Wheel]:
        """The versions that are pinned by now: those for just these requirements first, then those
        of the most alike.
        """

        def likeness(each: LockedPackages) -> tuple[bool, bool, int]:
            same = (each.python == wanted.python, each.platform == wanted.platform)
            return (*same, len({*each.wanted.requirements} & {*wanted.requirements}))

        found: dict[str, Wheel] = {}
        for packages in sorted(self.lock.packages, key=likeness, reverse=True):
            for wheel in packages.wheels:
                found.setdefault(wheel.name, wheel)
        return list(found.values())

    def _of_script(self, recipe: Recipe) -> str:
        """The Python that a script's metadata asks for: the pinned one if it may be that, else the
        oldest that may.
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
                f"{script}: requires-python = {asked!r} is not well-formed"
            ) from None
        may = [
            f"3.{minor}"
            for minor in range(_OLDEST, 30)
            if any(f"3.{minor}.{patch}" in specifiers for patch in range(30))
        ]
        if not may:
            raise ImageBuildError(
                f"{script} asks for Python {asked}", why="Tasks run with Python 3.11 or newer."
            )
        meant = self.lock.python or PYTHON
        if meant not in may:
            return may[0]
        return self._meant()

    def _meant(self) -> str:
        """The minor version that is meant where none is declared: the pinned one, or this
        interpreter's, which is pinned then.
        """
        if not self.lock.python:
            self._refuse("the minor version of Python that is meant")
            self._add(Lock(python=PYTHON), f"Python {PYTHON}")
        return self.lock.python
