"""A deployment's document: one environment's tasks as identities alone, the same on every machine
and in every directory.

It is canonical JSON (ASCII, sorted names, no spaces) and the one layer of an OCI artifact, whose
manifest says nothing else: so the manifest's digest, the pin, stands for the document. Versions,
projects and times are said elsewhere.
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
    """The document of a deployment, by its JSON `value`."""

    def __init__(self, value: JsonObject) -> None:
        self.value = value

    @classmethod
    def of(cls, environment: EnvironmentSpec, code: JsonObject, runtime: JsonObject) -> Document:
        """The document of an environment.

        `code` holds the tree's digest and how its modules are imported, `runtime` what its tasks
        run in, by digest.
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
            "image": image if isinstance(image, dict) else None,  # What is declared.
            "tasks": {
                name: {key: each for key, each in task.items() if key not in _SAID_ONCE}
                for name, task in tasks.items()
            },
        }
        return cls(value)

    @classmethod
    def parse(cls, data: bytes) -> Document:
        """The document of these bytes, which are verified by their digest. Raises
        `RegistryCorrupt`, `StoreFormatUnknown`.
        """
        try:
            value = json.loads(data, parse_constant=_refuse)
            if (
                isinstance(value, dict)
                and type(value.get("format")) is int
                and value["format"] > FORMAT
            ):
                raise StoreFormatUnknown(
                    "A deployment was made by a newer version of flyte-build",
                    why=f"Its format is {value['format']}; this version knows {FORMAT}.",
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
        """Raise unless the types of inputs and outputs are known, and the declared image is one."""
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
                        raise ValueError(f"a default is none: {error.what}") from None
        if (image := self.value["image"]) is not None:
            from flyte_build.images.recipe import Recipe

            try:
                recipe = Recipe.of(image)
            except FlyteError as error:
                raise ValueError(f"its image is none: {error.what}") from None
            check(recipe.env, {"*": str}, "the image's variables")
        elif self.kind == "image":
            raise ValueError("the document has no image")

    @property
    def name(self) -> str:
        """The environment's name."""
        return str(self.value["name"])

    @property
    def tree(self) -> Digest:
        """The identity of the code."""
        return Digest.parse(self.value["code"]["tree"])

    @property
    def kind(self) -> str:
        """What its tasks run in: a `host`, an image by `reference`, or one that was built
        (`image`).
        """
        return str(self.value["environment"]["kind"])

    @property
    def tasks(self) -> Mapping[str, JsonObject]:
        """What the document says of each task, by the names of their functions."""
        found: dict[str, JsonObject] = self.value["tasks"]
        return found

    def spec(self, function: str) -> TaskSpec:
        """The spec of a task."""
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
        """The document's bytes."""
        return canonical(self.value)

    @cached_property
    def manifest(self) -> Manifest:
        """The artifact. Its digest is the pin."""
        return Manifest.of_layers(
            empty_config(),
            [Descriptor(LAYER, Digest.of(self.data), len(self.data))],
            artifact_type=TYPE,
        )

    @property
    def pin(self) -> Digest:
        """What names the deployment, wherever it is."""
        return self.manifest.digest

    def blobs(self) -> tuple[bytes, ...]:
        """The bytes of all that the manifest names, and its own."""
        return (EMPTY_CONFIG, self.data, self.manifest.data)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _reason(error: Exception) -> str:
    text = str(error) if type(error) is ValueError else repr(error)
    return "".join(filter(str.isprintable, text))[:200]


_SAID_ONCE = ("name", "environment", "image")  # What the document says for all of its tasks.


def canonical(value: Any) -> bytes:
    """The one way to write a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
