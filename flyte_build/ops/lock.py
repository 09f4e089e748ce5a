"""Locking: complete, check or upgrade the pins of all images that files declare."""

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

# The name that upgrades the default Python, to the minor version of the current interpreter.
_PYTHON = "python"


@dataclass(frozen=True, kw_only=True)
class PinChange:
    """Change of the pin of a package, of a base image, or of Python.

    `old` and `new` are versions or digests, or "" if there is none. `python` and `platform` are
    those that a package is locked for, and "" for other pins.
    """

    name: str
    old: str
    new: str
    python: str = ""
    platform: str = ""


@dataclass(frozen=True, kw_only=True)
class Locked:
    """Result of locking or checking one lockfile.

    `changes` are the versions that changed; `missing` describes missing pins, and `unused` the pins
    that no image uses (only for a check). `beside` are phrases for all other changes.
    """

    path: str
    changes: Sequence[PinChange]
    missing: Sequence[str]
    unused: Sequence[str]
    beside: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether everything is pinned, and no pin is unused."""
        return not self.missing and not self.unused


class Upgrade:
    """Selection of the pins to upgrade: everything, or packages and bases by `names`."""

    def __init__(self, everything: bool = False, names: Iterable[str] = ()) -> None:
        self.everything, self._names = everything, {_normalized(name) for name in names}

    def __bool__(self) -> bool:
        return self.everything or bool(self._names)

    def moves(self, name: str) -> bool:
        """Whether the base or the Python of that name is to be upgraded."""
        return (self.everything and name != _PYTHON) or _normalized(name) in self._names

    def unknown(self, lock: Lock) -> list[str]:
        """Return the selected names that a lock has no pin for."""
        known = {_PYTHON, *(_normalized(each.reference) for each in lock.bases)}
        known |= {
            _normalized(wheel.name) for packages in lock.packages for wheel in packages.wheels
        }
        return sorted(self._names - known)

    @property
    def packages(self) -> set[str] | None:
        """Names that may be packages; None for all packages."""
        return None if self.everything else self._names


def lock_files(
    plans: Sequence[FilePlan], *, everything: bool, check: bool, upgrade: Upgrade
) -> Locked:
    """Pin everything that the images of a project's files need.

    With `everything`, `plans` must be those of all files of the project, and unused pins are
    dropped. With `check`, nothing is resolved or written. Raises `UsageError` if a name to upgrade
    is not pinned, and the errors of discovery and of resolving.
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
            f"flyte.lock does not pin {listed(unknown)}",
            hint="Name a package, the reference of a base image, or `python`.",
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
    """Collector of the pins of several images.

    `debian` is the reference of the Debian base, with `{python}` as a placeholder. `missing`
    describes the pins that are missing and must not be resolved.
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
        """Pin everything that an image needs."""
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
        # The Python of a Dockerfile is known only when it is built. Packages that were pinned then
        # are found by their requirements, so all pinned Pythons and platforms are tried.
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
        """Pin the Debian base, at most once.

        If only containers need it, a failing registry is noted but is not an error: users who run
        no containers need no registry.
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
                self._note(
                    f"{reference}, which only containers need, was not pinned: {error.what}."
                )

    def pinned(self, found: Lock, everything: bool) -> Lock:
        """Return a lock with the collected pins; with `everything`, without unused pins.

        The results of executed steps are kept as they are.
        """
        bases, packages = {each.reference: each for each in self._bases}, list(self._packages)
        # In a container, tasks that declare no image run on Debian.
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
    """Yield the pins that were added, removed and changed, sorted by name."""
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
    """Yield phrases for the changes of a lock that are not changes of versions."""
    if asked := [str(each.wanted) for each in after.packages if before.locked(each.wanted) is None]:
        yield f"packages locked for {listed(asked, 3)}"
    if dropped := [
        str(each.wanted) for each in before.packages if after.locked(each.wanted) is None
    ]:
        yield f"packages no longer locked as before for {listed(dropped, 3)}"
    old, new = (
        [wheel for each in lock.packages for wheel in each.wheels] for lock in (before, after)
    )
    known = {(wheel.name, wheel.version) for wheel in old}
    if others := sorted(
        {wheel.name for wheel in new if (wheel.name, wheel.version) in known and wheel not in old}
    ):
        yield f"different wheel files or URLs for {listed(others, 5)}"
    if any(step not in before.steps for step in after.steps) or len(before.steps) != len(
        after.steps
    ):
        yield "results of commands"
    pinned = {each.reference: each for each in before.bases}
    if found := [
        each.reference
        for each in after.bases
        if each.python and each.reference in pinned and not pinned[each.reference].python
    ]:
        yield f"the Python in {listed(found, 3)}"


def _versions(lock: Lock) -> dict[tuple[str, str, str], set[str]]:
    """Return the versions of each package, by its name, Python and platform.

    Several images may have different versions of the same package.
    """
    found: dict[tuple[str, str, str], set[str]] = {}
    for packages in lock.packages:
        for wheel in packages.wheels:
            found.setdefault((wheel.name, packages.python, packages.platform), set()).add(
                wheel.version
            )
    return found


def _normalized(name: str) -> str:
    """Return the normalized name (PyPA specifications, "Names and normalization")."""
    return re.sub(r"[-_.]+", "-", name).lower()
