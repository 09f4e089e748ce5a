"""Choice of the image that a task runs in, as far as it is known without inspecting the image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recipe import Recipe

_KEPT_ONLY = frozenset(("secret_mounts", "registry_secret", "install_project"))


class ImageChoice:
    """The image that a task runs in, by its JSON `value`.

    It is the current interpreter, an existing image by reference, or an image to build. The recipe
    is created at the first access.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    @property
    def is_host(self) -> bool:
        """Whether no image is used."""
        return bool(self.value == "auto")

    @property
    def reference(self) -> str | None:
        """The reference of an existing image, else None."""
        return self.value if isinstance(self.value, str) and not self.is_host else None

    @property
    def is_declared(self) -> bool:
        """Whether the image has to be built."""
        return not isinstance(self.value, str)

    @cached_property
    def text(self) -> str:
        """Canonical JSON of the value: two images are the same if it is equal."""
        return json.dumps(self.value, sort_keys=True)

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables of a declared image, known without its recipe."""
        return dict(
            pair
            for step in self.value["steps"]
            if step["step"] == "env_vars"
            for pair in step["variables"]
        )

    @property
    def unused_options(self) -> list[str]:
        """The declared options that are accepted but have no effect."""
        if not self.is_declared:
            return []
        return sorted(
            _KEPT_ONLY
            & {name for step in (self.value["base"], *self.value["steps"]) for name in step}
        )

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the image; raises `DeclarationError`."""
        from .recipe import Recipe

        return Recipe.of(self.value)
