"""Node of an executed build step: its result cannot be reproduced, so it is pinned and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import Value
from flyte_build.cas.records import Record
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.errors import ImageBuildError, NotLocked, RegistryError, StoreError
from flyte_build.graph.node import Made, Node, Outcomes, Resolve
from flyte_build.images.lock.pins import PinnedStep
from flyte_build.images.oci_image import OciImage

from .plan import FORMAT
from .step_results import StepResult, StepResults


class PinnedSteps(Protocol):
    """Pinned results of build steps."""

    @property
    def locked(self) -> bool:
        """Whether missing pins are errors."""

    def step(self, key: str, platform: str) -> PinnedStep | None:
        """Return the pinned result of a step, or None."""

    def step_by_now(self, key: str, platform: str) -> PinnedStep | None:
        """Return the same from a fresh read, since another process may have pinned it."""

    def keep_step(self, step: PinnedStep) -> None:
        """Pin the result of a step."""


@dataclass(frozen=True)
class Step:
    """A step to execute for one platform; `key` covers the step and the image that it runs in."""

    name: str
    key: str
    platform: str
    execute: Callable[[], StepResult]


@dataclass(frozen=True)
class StepStore:
    """Stored results of steps; they are not used with `anew`."""

    kept: StepResults
    anew: bool


class StepNode(Node):
    """Node of an executed step.

    Another execution would give another result, so the pinned result is one of the inputs.
    """

    kind, format = "image", FORMAT
    shared, whole = True, True

    def __init__(
        self,
        label: str,
        step: Step,
        pins: PinnedSteps,
        store: StepStore,
        cache: Cache,
        note: Callable[[str], None],
    ) -> None:
        super().__init__(step.name, label)
        self._step, self._pins, self._store, self._cache, self._note = (
            step,
            pins,
            store,
            cache,
            note,
        )

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Return the step's key, which covers its base, and the digest of its pinned result."""
        pinned = self._pins.step(self._step.key, self._step.platform)
        return self._with(pinned.digest if pinned else None)

    def _with(self, digest: Digest | None) -> Mapping[str, Value]:
        return {
            "executed": self.name,
            "step": self._step.key,
            "platform": self._step.platform,
            "pinned": digest,
        }

    def usable(self, record: Record) -> bool:
        """Whether all blobs of the result are in the store."""
        return self._cache.blobs.has_all(record.refs)

    def accept(self, artifact: Digest, inputs: Mapping[str, Value]) -> tuple[Digest, ...]:
        """Return all blobs of a result from another machine.

        Raises `ImageBuildError` if it is not the pinned one.
        """
        image = OciImage.read(artifact, self._cache.blobs)
        if image.identity != inputs["pinned"]:
            raise ImageBuildError(
                f"{artifact} is not the pinned image", why=f"Its identity is {image.identity}."
            )
        return (artifact, image.identity, *(layer.digest for layer in image.manifest.layers))

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Return the stored result of the step, or execute it and pin the result.

        Raises `NotLocked` if it would have to be executed with `--locked`.
        """
        # Another process with the same step waits, and uses the result of this one.
        with self._cache.making(self._step.key):
            pinned = self._pins.step_by_now(self._step.key, self._step.platform)
            found = self._bring(pinned.digest) if pinned and not self._store.anew else None
            image, layers = found or self._executed(pinned)
            with self._cache.blobs.batch() as batch:
                image.write(batch)
            self._keep(image, layers)
        refs = (image.manifest.digest, image.identity, *(layer.digest for layer in layers))
        why = "its result was stored" if found else ""
        return Made(image.manifest.digest, refs, self._with(image.identity), why)

    def keep(self, record: Record) -> None:
        """Store a result with the user's data, where deleting the cache does not remove it."""
        image = OciImage.read(record.artifact, self._cache.blobs)
        self._keep(image, [layer for layer in image.manifest.layers if layer.digest in record.refs])

    def _keep(self, image: OciImage, layers: Sequence[Descriptor]) -> None:
        try:
            self._store.kept.keep(image, layers)
        except (RegistryError, StoreError) as error:
            self._note(f"The result of {self.name} is only in the cache: {error.what}.")

    def _bring(self, identity: Digest) -> StepResult | None:
        try:
            return self._store.kept.bring(identity)
        except (RegistryError, StoreError) as error:
            self._note(f"The stored result of {self.name} cannot be read: {error.what}.")
            return None

    def _executed(self, pinned: PinnedStep | None) -> StepResult:
        if self._pins.locked and pinned is None:
            raise NotLocked(
                f"Cannot execute {self.name}",
                why="With --locked, nothing is executed, and flyte.lock does not pin its result.",
                hint="Run `flyte build` without --locked, and commit flyte.lock.",
            )
        if self._pins.locked and pinned:
            raise NotLocked(
                (
                    f"Cannot execute {self.name} again"
                    if self._store.anew
                    else f"Cannot find the pinned result of {self.name}"
                ),
                why=f"{pinned.digest} is pinned; another execution would give another result.",
                hint=(
                    "Build without --locked, and commit flyte.lock; use `flyte build --push` to"
                    " share results with other machines."
                ),
            )
        image, layers = self._step.execute()
        if pinned and pinned.digest != image.identity:
            before = f"it was {pinned.digest.short}" + (
                "" if self._store.anew else ", which cannot be found any more"
            )
            self._note(
                f"Executed again: the result of {self.name} is now {image.identity.short};"
                f" {before}."
            )
        if pinned is None or pinned.digest != image.identity:
            self._pins.keep_step(
                PinnedStep(key=self._step.key, platform=self._step.platform, digest=image.identity)
            )
        return image, layers
