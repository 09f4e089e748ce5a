"""Document of a deployment: one environment's tasks, with code and image given as digests.

It is the same on every machine and in every directory: canonical JSON (ASCII, sorted names, no
spaces). It is the only layer of an OCI artifact, whose manifest contains nothing else, so the
manifest's digest (the pin) identifies the document. Versions, projects and times are stored in the
release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import EMPTY_CONFIG, Manifest, empty_config
from flyte_build.declarations.interface import Interface
from flyte_build.declarations.spec import EnvironmentSpec, JsonObject, TaskSpec
from flyte_build.errors import FlyteError, InputError, RegistryCorrupt, StoreFormatUnknown
from flyte_build.values.type import ABSENT

from .shape import DOCUMENT, check, text

FORMAT = 1
TYPE = "application/vnd.flyte.deployment.v1+json"
LAYER = "application/vnd.flyte.deployment.document.v1+json"


class Document:
    """The document of a deployment; `value` is its JSON value."""

    def __init__(self, value: JsonObject) -> None:
        self.value = value

    @classmethod
    def of(cls, environment: EnvironmentSpec, code: JsonObject, runtime: JsonObject) -> Document:
        """Return the document of an environment.

        `code` has the tree's digest and the import roots of its modules, and `runtime` describes
        the host or image that its tasks run in.
        """
        tasks = {function: task.document() for function, task in environment.tasks.items()}
        image = environment.image
        value = {
            "format": FORMAT,
            "name": environment.name,
            "description": environment.description,
            "depends_on": environment.depends_on,
            "code": code,
            "environment": runtime,
            "image": image if isinstance(image, dict) else None,  # As it is declared.
            "tasks": {
                name: {key: each for key, each in task.items() if key not in _SAID_ONCE}
                for name, task in tasks.items()
            },
        }
        return cls(value)

    @classmethod
    def parse(cls, data: bytes) -> Document:
        """Parse a document, whose bytes must be verified already.

        Raises `RegistryCorrupt` if it is malformed, and `StoreFormatUnknown` if it is too new.
        """
        try:
            value = json.loads(data, parse_constant=_refuse)
            if (
                isinstance(value, dict)
                and type(value.get("format")) is int
                and value["format"] > FORMAT
            ):
                raise StoreFormatUnknown(
                    "A deployment was created by a newer version of flyte-build",
                    why=f"Its format is {value['format']}; this version supports {FORMAT}.",
                    hint="Upgrade flyte-build.",
                )
            check(value, DOCUMENT)
            document = cls(value)
            if value["format"] != FORMAT or not document.name or not document.tasks:
                raise ValueError("something is missing")
            document._check_types()
            return document
        except (
            ValueError,
            KeyError,
            TypeError,
            IndexError,
            AttributeError,
            RecursionError,
        ) as error:
            raise RegistryCorrupt(
                "A deployment is malformed",
                why=f"{_reason(error)}.",
                hint="Do not use it; deploy again.",
            ) from None

    def _check_types(self) -> None:
        """Raise `ValueError` or another error if a type, a default or the image is invalid."""
        for task in self.tasks.values():
            interface = Interface.from_document(task["interface"])
            for known in (
                *(each.type for each in interface.inputs),
                *(type for _, type in interface.outputs),
            ):
                text(str(known), "a type")
            for each in interface.inputs:
                if each.default is not ABSENT:
                    try:
                        each.check(each.default)
                    except InputError as error:
                        raise ValueError(f"a default is invalid: {error.what}") from None
        if (image := self.value["image"]) is not None:
            from flyte_build.images.recipe import Recipe

            try:
                recipe = Recipe.of(image)
            except FlyteError as error:
                raise ValueError(f"its image is invalid: {error.what}") from None
            check(recipe.env, {"*": str}, "the image's variables")
        elif self.kind == "image":
            raise ValueError("the document has no image")

    @property
    def name(self) -> str:
        """Name of the environment."""
        return str(self.value["name"])

    @property
    def tree(self) -> Digest:
        """Digest of the code's tree."""
        return Digest.parse(self.value["code"]["tree"])

    @property
    def kind(self) -> str:
        """Kind of runtime: `host`, an existing image (`reference`), or a built one (`image`)."""
        return str(self.value["environment"]["kind"])

    @property
    def tasks(self) -> Mapping[str, JsonObject]:
        """JSON descriptions of the tasks, by the names of their functions."""
        found: dict[str, JsonObject] = self.value["tasks"]
        return found

    def spec(self, function: str) -> TaskSpec:
        """Return the spec of the task with that function."""
        runtime = self.value["environment"]
        image = (
            f"{runtime['uri']}@{runtime['digest']}"
            if self.kind == "reference"
            else self.value["image"] or "auto"
        )
        said_once = {"name": f"{self.name}.{function}", "environment": self.name, "image": image}
        return TaskSpec.parse({**self.tasks[function], **said_once})

    @cached_property
    def data(self) -> bytes:
        """Bytes of the document."""
        return canonical(self.value)

    @cached_property
    def manifest(self) -> Manifest:
        """Manifest of the OCI artifact. Its digest is the pin."""
        return Manifest.of_layers(
            empty_config(),
            [Descriptor(LAYER, Digest.of(self.data), len(self.data))],
            artifact_type=TYPE,
        )

    @property
    def pin(self) -> Digest:
        """Digest that identifies the deployment, wherever it is stored."""
        return self.manifest.digest

    def blobs(self) -> tuple[bytes, ...]:
        """Return the bytes of the manifest's config and layer, and of the manifest itself."""
        return (EMPTY_CONFIG, self.data, self.manifest.data)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def _reason(error: Exception) -> str:
    text = str(error) if type(error) is ValueError else repr(error)
    return "".join(filter(str.isprintable, text))[:200]


_SAID_ONCE = ("name", "environment", "image")  # Stored once for all tasks of the document.


def canonical(value: Any) -> bytes:
    """Return the canonical JSON of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
