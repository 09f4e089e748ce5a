"""What came of an action: outputs, or why there are none. The worker writes it, once, as
`result.json`.
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
    """Why there are no outputs: the `type` of an exception and its `message`.

    `kind` says whose fault it is: the task's (`user`), an input's (`input`), ours or the machine's
    (`system`), or nobody knows (`lost`). `hint` is what to do, "" if that is not known.
    """

    type: str
    message: str
    kind: str = "user"
    traceback: str = ""
    hint: str = ""

    def document(self) -> dict[str, str]:
        """This failure as a JSON value."""
        return {name: text for name, text in self._asdict().items() if text or name != "hint"}


class Result(NamedTuple):
    """How an attempt, or a run, ended: with wire `outputs` by name, or with an `error`."""

    phase: Phase
    outputs: Wires = MappingProxyType({})
    error: Failure | None = None

    def advised(self, hint: str) -> Result:
        """The same with a hint in its error."""
        return self._replace(error=self.error and self.error._replace(hint=hint))

    def document(self) -> dict[str, Any]:
        """What came of it as a JSON value, without the phase: `outputs` or an `error`."""
        if self.error is not None:
            return {"error": self.error.document()}
        return {"outputs": dict(self.outputs)}

    def write(self, folder: str) -> None:
        """Put it into a run's directory, at once and whole. Raises `OSError`, and `ValueError` for
        outputs that are no JSON values.
        """
        document = {"phase": self.phase, **self.document()}
        replace_file(f"{folder}/result.json", json.dumps(document, allow_nan=False).encode())

    @classmethod
    def read(cls, folder: str) -> Result | None:
        """The result in a run's directory; None if none is there, whole."""
        try:
            with open(f"{folder}/result.json", encoding="utf-8") as file:
                document = json.load(file)
            phase, error = document["phase"], document.get("error")
            if (phase == "succeeded") != (error is None):
                return None
            if error is None:
                return cls(phase, outputs=dict(document["outputs"]))
            return cls(phase, error=Failure(**{name: str(text) for name, text in error.items()}))
        # It is the task's process that writes it, and a task can do what it likes.
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
