"""Result of an action: outputs, or the reason there are none.

The worker writes it once, as `result.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from flyte_build.cas.atomic import replace_file
from flyte_build.values.type import Wires

NO_RESULT = 74  # A worker's exit code when it could not write its result (EX_IOERR of sysexits.h).
_ALWAYS = ("type", "message", "kind", "traceback")  # In each failure's document, also if empty.
Phase = Literal["queued", "running", "succeeded", "failed", "aborted", "timed_out"]


class Failure(NamedTuple):
    """Reason for missing outputs: the `type` of an exception and its `message`.

    `kind` attributes it: to the task (`user`), to an input (`input`), to this library or the
    machine (`system`), or to an unknown cause (`lost`). `hint` tells what to do, or is "". No
    retry follows a failure that `is_final`. `cls` is the name of the exception's class
    (`module:name`), and `state` the pickle of its arguments and attributes, in Base64.
    """

    type: str
    message: str
    kind: str = "user"
    traceback: str = ""
    hint: str = ""
    is_final: bool = False
    cls: str = ""
    state: str = ""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Failure:
        """Return the failure from a value that `document` returned.

        Raises `LookupError` or `TypeError` if it is invalid.
        """
        texts = {name: str(text) for name, text in document.items() if name != "is_final"}
        return cls(**texts, is_final=document.get("is_final") is True)

    def document(self) -> dict[str, Any]:
        """Return the failure as a JSON value, with what a caller needs to raise it."""
        return {name: it for name, it in self._asdict().items() if it or name in _ALWAYS}

    def shown(self) -> dict[str, Any]:
        """Return the failure as a JSON value for the user, without pickles."""
        return {name: it for name, it in self.document().items() if name not in ("cls", "state")}


class Result(NamedTuple):
    """Result of an attempt or a run: wire `outputs` by name, or an `error`."""

    phase: Phase
    outputs: Wires = MappingProxyType({})
    error: Failure | None = None

    @property
    def is_retried(self) -> bool:
        """Whether another attempt may succeed, and may be made."""
        if self.error is None or self.phase == "aborted":
            return False
        return not self.error.is_final and self.error.kind != "input"

    def advised(self, hint: str) -> Result:
        """Return the same result with a hint in its error."""
        return self._replace(error=self.error and self.error._replace(hint=hint))

    def document(self) -> dict[str, Any]:
        """Return `outputs` or `error` as a JSON value, without the phase."""
        if self.error is not None:
            return {"error": self.error.document()}
        return {"outputs": dict(self.outputs)}

    def write(self, folder: str) -> None:
        """Write the result into a run's directory, atomically.

        Raises `OSError`, and `ValueError` for outputs that are not JSON values.
        """
        replace_file(f"{folder}/result.json", self.encoded())

    def encoded(self, **others: Any) -> bytes:
        """Return the result, and other JSON values, as JSON text.

        Raises `ValueError` for outputs that are not JSON values.
        """
        document = {"phase": self.phase, **self.document(), **others}
        return json.dumps(document, allow_nan=False).encode()

    @classmethod
    def parse(cls, phase: Phase, document: Mapping[str, Any]) -> Result:
        """Return the result from a value that `document` returned.

        Raises `LookupError`, `TypeError`, `ValueError` or `AttributeError` if it is invalid.
        """
        if (error := document.get("error")) is not None:
            return cls(phase, error=Failure.parse(error))
        return cls(phase, outputs=dict(document["outputs"]))

    @classmethod
    def read(cls, folder: str) -> Result | None:
        """Return the result in a run's directory, or None if it is missing or damaged."""
        try:
            with open(f"{folder}/result.json", "rb") as file:
                return cls.decoded(file.read())
        except OSError:
            return None

    @classmethod
    def decoded(cls, text: bytes) -> Result | None:
        """Return the result from JSON text, or None if that is damaged."""
        try:
            document = json.loads(text)
            result = cls.parse(document["phase"], document)
            return None if (result.phase == "succeeded") != (result.error is None) else result
        # The task's process has written it, so its content cannot be trusted.
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
