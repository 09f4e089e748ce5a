"""What executing something makes, as a node: it does not repeat, so it is pinned and kept."""

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
    """What executing steps came to, as it is pinned."""

    @property
    def locked(self) -> bool:
        """Whether nothing may be looked up."""

    def step(self, key: str, platform: str) -> PinnedStep | None:
        """What executing something came to, if it is pinned."""

    def step_by_now(self, key: str, platform: str) -> PinnedStep | None:
        """The same, also if another command has pinned it meanwhile."""

    def keep_step(self, step: PinnedStep) -> None:
        """Pin what executing something came to."""


@dataclass(frozen=True)
class Step:
    """Something to be executed for a platform: `key` is that of what is executed, on what."""

    name: str
    key: str
    platform: str
    execute: Callable[[], StepResult]


@dataclass(frozen=True)
class StepStore:
    """What executing steps came to, which is taken unless it shall be executed `anew`."""

    kept: StepResults
    anew: bool


class StepNode(Node):
    """What executing something makes. It does not repeat, so what it came to is pinned, and is
    among the inputs.
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
        """What it is executed on and what is executed, as one digest, and what that came to."""
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
        """Whether all of it is there."""
        return self._cache.blobs.has_all(record.refs)

    def accept(self, artifact: Digest, inputs: Mapping[str, Value]) -> tuple[Digest, ...]:
        """All blobs of what another machine made, if that is what is pinned."""
        image = OciImage.read(artifact, self._cache.blobs)
        if image.identity != inputs["pinned"]:
            raise ImageBuildError(
                f"{artifact} is not what is pinned", why=f"It is {image.identity}."
            )
        return (artifact, image.identity, *(layer.digest for layer in image.manifest.layers))

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Take what is kept of it; else execute it, and pin what comes of it. Raises `NotLocked`
        where nothing may be resolved.
        """
        # Another command that wants the same waits, and takes what this one has made.
        with self._cache.making(self._step.key):
            pinned = self._pins.step_by_now(self._step.key, self._step.platform)
            found = self._bring(pinned.digest) if pinned and not self._store.anew else None
            image, layers = found or self._executed(pinned)
            with self._cache.blobs.batch() as batch:
                image.write(batch)
            self._keep(image, layers)
        refs = (image.manifest.digest, image.identity, *(layer.digest for layer in layers))
        why = "it was kept" if found else ""
        return Made(image.manifest.digest, refs, self._with(image.identity), why)

    def keep(self, record: Record) -> None:
        """Keep what was made here among the user's data, where deleting the cache does not reach
        it.
        """
        image = OciImage.read(record.artifact, self._cache.blobs)
        self._keep(image, [layer for layer in image.manifest.layers if layer.digest in record.refs])

    def _keep(self, image: OciImage, layers: Sequence[Descriptor]) -> None:
        try:
            self._store.kept.keep(image, layers)
        except (RegistryError, StoreError) as error:
            self._note(f"What {self.name} came to is in the cache alone: {error.what}.")

    def _bring(self, identity: Digest) -> StepResult | None:
        try:
            return self._store.kept.bring(identity)
        except (RegistryError, StoreError) as error:
            self._note(f"What {self.name} came to was kept, and cannot be read: {error.what}.")
            return None

    def _executed(self, pinned: PinnedStep | None) -> StepResult:
        if self._pins.locked and pinned is None:
            raise NotLocked(
                f"{self.name} was never executed here",
                why="--locked refuses to.",
                hint="Build it where it may be executed (`flyte build`), and commit flyte.lock.",
            )
        if self._pins.locked and pinned:
            raise NotLocked(
                (
                    f"{self.name} would be executed again"
                    if self._store.anew
                    else f"What {self.name} came to is nowhere any more"
                ),
                why=f"{pinned.digest} is pinned; executed again it would come to something else.",
                hint=(
                    "Build without --locked, and commit flyte.lock; `flyte build --push` keeps what"
                    " was built for other machines."
                ),
            )
        image, layers = self._step.execute()
        if pinned and pinned.digest != image.identity:
            before = f"it was {pinned.digest.short}" + (
                "" if self._store.anew else ", which is nowhere any more"
            )
            self._note(f"Executed again, {self.name} came to {image.identity.short}; {before}.")
        if pinned is None or pinned.digest != image.identity:
            self._pins.keep_step(
                PinnedStep(key=self._step.key, platform=self._step.platform, digest=image.identity)
            )
        return image, layers
