"""Locking: the pins of all images that files declare, completed, checked or moved, as `flyte lock`
does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from flyte_build.errors import FlyteError, NotLocked, UsageError
from flyte_build.images.environments.node import why_not_local
from flyte_build.images.lock.lockfile import Lock
from flyte_build.images.lock.pins import LockedPackages, PinnedBase
from flyte_build.images.lock.project_lock import Pins
from flyte_build.images.platforms import PYTHON, architecture, here
from flyte_build.images.recipe import Recipe
from flyte_build.text.wording import listed

from .prepare import FilePlan

# Under this name the Python that is meant is moved: to the minor version of the interpreter at
# hand.
_PYTHON = "python"


@dataclass(frozen=True, kw_only=True)
class PinChange:
    """What became of one package, base, or Python; `old` and `new` are versions or digests, ""
    where there is none.

    `python` and `platform` are what a package is for, "" for others.
    """

    name: str
    old: str
    new: str
    python: str = ""
    platform: str = ""


@dataclass(frozen=True, kw_only=True)
class Locked:
    """What came of one lock file: the versions that changed in it, and with a check what it misses,
    and what no image uses.

    `beside` are phrases for all else that changed in it.
    """

    path: str
    changes: Sequence[PinChange]
    missing: Sequence[str]
    unused: Sequence[str]
    beside: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether all is pinned, and nothing else."""
        return not self.missing and not self.unused


class Upgrade:
    """What is to be moved: everything, or packages and bases by `names`."""

    def __init__(self, everything: bool = False, names: Iterable[str] = ()) -> None:
        self.everything, self._names = everything, {_normalized(name) for name in names}

    def __bool__(self) -> bool:
        return self.everything or bool(self._names)

    def moves(self, name: str) -> bool:
        """Whether it moves a base, or Python."""
        return (self.everything and name != _PYTHON) or _normalized(name) in self._names

    def unknown(self, lock: Lock) -> list[str]:
        """The names that a lock knows nothing of."""
        known = {_PYTHON, *(_normalized(each.reference) for each in lock.bases)}
        known |= {
            _normalized(wheel.name) for packages in lock.packages for wheel in packages.wheels
        }
        return sorted(self._names - known)

    @property
    def packages(self) -> set[str] | None:
        """The names that may be packages; None for all."""
        return None if self.everything else self._names


def lock_files(
    plans: Sequence[FilePlan], *, everything: bool, check: bool, upgrade: Upgrade
) -> Locked:
    """Pin what the images of one project's files need; with `everything` these are all files, and
    what is left over is dropped.

    With `check` nothing is resolved or written. Raises what discovering and resolving raise.
    """
    for plan in plans:
        plan.discover()
    first, session = plans[0], plans[0].session
    pins = first.pins
    before = pins.lock
    if upgrade.moves(_PYTHON) and before.python and not check:
        pins.replace(lambda found: replace(found, python=PYTHON))
    images = {
        image.text: image
        for plan in plans
        for each in plan.discovery.findings.reachable
        if not (image := plan.image(each.image)).is_host
    }
    locking = _Locking(
        pins.known() if check else pins, upgrade, session.settings.image_base, session.reporter.note
    )
    for image in images.values():
        locking.add(image.recipe)
    after = locking.pinned(before, everything)
    if unknown := upgrade.unknown(before):
        raise UsageError(
            f"flyte.lock pins no {listed(unknown)}",
            hint="Name a package, a base's reference, or `python`.",
        )
    if not check:
        pins.replace(lambda found: locking.pinned(found, everything))
        after = pins.lock
    unused = list(_left_over(before, locking.pinned(before, True))) if everything and check else []
    return Locked(
        path=pins.path,
        changes=() if check else list(changes(before, after)),
        missing=locking.missing,
        unused=unused,
        beside=() if check else list(_beside(before, after)),
    )


class _Locking:
    """Pins one image after another; `missing` are those that may not be resolved. `debian` is the
    reference of Debian, with `{python}`.
    """

    def __init__(
        self, pins: Pins, upgrade: Upgrade, debian: str, note: Callable[[str], None]
    ) -> None:
        self._pins, self._upgrade, self._debian, self._note = pins, upgrade, debian, note
        self._tried: set[str] = set()
        self._bases: list[PinnedBase] = []
        self._packages: list[LockedPackages] = []
        self.missing: list[str] = []

    def add(self, recipe: Recipe) -> None:
        """Pin what an image needs."""
        try:
            self._add(recipe)
        except NotLocked as error:
            self.missing.append(error.what)

    def _add(self, recipe: Recipe) -> None:
        base = recipe.base
        is_bare = not recipe.sources and not recipe.steps
        if base.kind == "reference":
            python = (
                ""
                if "@" in base.uri and is_bare
                else self._base(base.uri, bool(recipe.sources)).python
            )
        else:
            python = self._pins.python(recipe)
        platforms = {*(recipe.platforms or (f"linux/{architecture(here())}",))}
        is_local = not why_not_local(recipe, lambda: python)
        if base.kind == "debian":
            self._debian_base(self._debian.format(python=python), only_for_containers=is_local)
        if is_local:
            platforms.add(here())
        targets = {(python, platform) for platform in platforms if python and recipe.locks}
        # Its Python is known when it is built; what was pinned then is known by what it asks for.
        if base.kind == "dockerfile":
            targets = {(each.python, each.platform) for each in self._pins.lock.packages}
        for python, platform in sorted(targets):
            wanted = self._pins.wanted(recipe, python, platform)
            if not wanted.requirements or any(each.wanted == wanted for each in self._packages):
                continue
            if self._upgrade:
                self._packages.append(self._pins.resolve(recipe, wanted, self._upgrade.packages))
            elif base.kind != "dockerfile" or self._pins.lock.locked(wanted):
                self._packages.append(self._pins.packages(recipe, python, platform))

    def _base(self, reference: str, with_python: bool) -> PinnedBase:
        ask = self._pins.look_up if self._upgrade.moves(reference) else self._pins.base
        self._bases.append(ask(reference, with_python))
        return self._bases[-1]

    def _debian_base(self, reference: str, only_for_containers: bool) -> None:
        """Pin Debian. Where only containers need it, an unreachable registry is no failure: whoever
        works without them needs none.
        """
        if reference in self._tried:
            return
        self._tried.add(reference)
        try:
            self._base(reference, True)
        except FlyteError as error:
            if not only_for_containers:
                raise
            if not isinstance(error, NotLocked):
                self._note(f"{reference}, which only containers need, is not pinned: {error.what}.")

    def pinned(self, found: Lock, everything: bool) -> Lock:
        """A lock with what was pinned; with `everything` without what no image uses. What commands
        came to is not judged here.
        """
        bases, packages = {each.reference: each for each in self._bases}, list(self._packages)
        # Tasks that declare no image run on it, in a container.
        debian = self._debian.format(python=found.python)
        for base in found.bases:
            if not everything or base.reference == debian:
                bases.setdefault(base.reference, base)
        if not everything:
            wanted = [each.wanted for each in packages]
            packages += [each for each in found.packages if each.wanted not in wanted]
        return replace(found, bases=tuple(bases.values()), packages=tuple(packages))


def _left_over(before: Lock, after: Lock) -> Iterator[str]:
    kept = {(each.reference, each.digest) for each in after.bases}
    yield from (
        each.reference for each in before.bases if (each.reference, each.digest) not in kept
    )
    yield from (str(each.wanted) for each in before.packages if each not in after.packages)


def changes(before: Lock, after: Lock) -> Iterator[PinChange]:
    """What was added, removed and moved, sorted by name."""
    found = []
    if before.python != after.python:
        found.append(PinChange(name="Python", old=before.python, new=after.python))
    old_bases, new_bases = (
        {each.reference: each.digest.short for each in lock.bases} for lock in (before, after)
    )
    for name in {**old_bases, **new_bases}:
        if old_bases.get(name) != new_bases.get(name):
            found.append(
                PinChange(name=name, old=old_bases.get(name, ""), new=new_bases.get(name, ""))
            )
    old, new = _versions(before), _versions(after)
    for which in {**old, **new}:
        lost, won = (
            sorted(one.get(which, set()) - other.get(which, set()))
            for one, other in ((old, new), (new, old))
        )
        name, python, platform = which
        if lost or won:
            found.append(
                PinChange(
                    name=name,
                    old=", ".join(lost),
                    new=", ".join(won),
                    python=python,
                    platform=platform,
                )
            )
    yield from sorted(found, key=lambda each: (each.name, each.python, each.platform))


def _beside(before: Lock, after: Lock) -> Iterator[str]:
    """Say what changed in a lock although no version did, as phrases."""
    if asked := [str(each.wanted) for each in after.packages if before.locked(each.wanted) is None]:
        yield f"packages are locked for {listed(asked, 3)}"
    if dropped := [
        str(each.wanted) for each in before.packages if after.locked(each.wanted) is None
    ]:
        yield f"no packages are locked for {listed(dropped, 3)} as it was"
    old, new = (
        [wheel for each in lock.packages for wheel in each.wheels] for lock in (before, after)
    )
    known = {(wheel.name, wheel.version) for wheel in old}
    if others := sorted(
        {wheel.name for wheel in new if (wheel.name, wheel.version) in known and wheel not in old}
    ):
        yield f"the wheels of {listed(others, 5)} are other files, or come from elsewhere"
    if any(step not in before.steps for step in after.steps) or len(before.steps) != len(
        after.steps
    ):
        yield "what commands came to"
    pinned = {each.reference: each for each in before.bases}
    if found := [
        each.reference
        for each in after.bases
        if each.python and each.reference in pinned and not pinned[each.reference].python
    ]:
        yield f"the Python in {listed(found, 3)}"


def _versions(lock: Lock) -> dict[tuple[str, str, str], set[str]]:
    """The versions of each package, which several images may have at several, for each Python and
    platform.
    """
    found: dict[tuple[str, str, str], set[str]] = {}
    for packages in lock.packages:
        for wheel in packages.wheels:
            found.setdefault((wheel.name, packages.python, packages.platform), set()).add(
                wheel.version
            )
    return found


def _normalized(name: str) -> str:
    """A name as indexes compare it (PyPA specifications, "Names and normalization")."""
    return re.sub(r"[-_.]+", "-", name).lower()
