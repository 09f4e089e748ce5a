"""Result of an action: outputs, or the reason there are none.

The worker writes it once, as `result.json`.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from flyte_build.cas.atomic import replace_file
from flyte_build.values.type import Wires

NO_RESULT = 74  # A worker's exit code when it could not write its result (EX_IOERR of sysexits.h).
Phase = Literal["queued", "running", "succeeded", "failed", "aborted", "timed_out"]


class Failure(NamedTuple):
    """Reason for missing outputs: the `type` of an exception and its `message`.

    `kind` attributes it: to the task (`user`), to an input (`input`), to this library or the
    machine (`system`), or to an unknown cause (`lost`). `hint` tells what to do, or is "".
    """

    type: str
    message: str
    kind: str = "user"
    traceback: str = ""
    hint: str = ""

    def document(self) -> dict[str, str]:
        """Return the failure as a JSON value."""
        return {name: text for name, text in self._asdict().items() if text or name != "hint"}


class Result(NamedTuple):
    """Result of an attempt or a run: wire `outputs` by name, or an `error`."""

    phase: Phase
    outputs: Wires = MappingProxyType({})
    error: Failure | None = None

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
        document = {"phase": self.phase, **self.document()}
        replace_file(f"{folder}/result.json", json.dumps(document, allow_nan=False).encode())

    @classmethod
    def read(cls, folder: str) -> Result | None:
        """Return the result in a run's directory, or None if it is missing or damaged."""
        try:
            with open(f"{folder}/result.json", encoding="utf-8") as file:
                document = json.load(file)
            phase, error = document["phase"], document.get("error")
            if (phase == "succeeded") != (error is None):
                return None
            if error is None:
                return cls(phase, outputs=dict(document["outputs"]))
            return cls(phase, error=Failure(**{name: str(text) for name, text in error.items()}))
        # The task's process writes the file, so its content cannot be trusted.
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
