"""Rules for files that must not go into images: those of bundles."""

from __future__ import annotations

from flyte_build.errors import SecretRefused

from .text.wording import listed
from .workspace import sensitive


class SecretRules:
    """The files kept out of images, which are those kept out of bundles."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed
        self.by_name = sensitive.by_name
        self.watch = sensitive.ContentWatch

    def refuse(self, found: list[tuple[str, str]]) -> None:
        """Raise `SecretRefused` for those that are not allowed."""
        refused = sorted((path, why) for path, why in found if path not in self._allowed)
        if refused:
            raise SecretRefused(
                f"Files with secrets would have gone into the image: {listed([path for path, _ in refused])}",
                why=f"{refused[0][0]}: {refused[0][1]}. Anyone with the image could read them.",
                hint=f'Add `{refused[0][0]}` to .dockerignore; or allow it in flyte.toml: bundle.allow_secrets = ["{refused[0][0]}"]',
            )
