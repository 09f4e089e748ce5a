"""Results of attempts, as their engines and workers report them."""

from __future__ import annotations

from flyte_build.errors import FlyteError
from flyte_build.runner.action import Action
from flyte_build.runner.engines.protocol import Event
from flyte_build.runner.result import Failure, Phase, Result


def system_failure(error: FlyteError) -> Failure:
    """Return the failure of an action that could not be carried out because of `error`."""
    message = f"{error.what}: {error.why}" if error.why else error.what
    return Failure(type(error).__name__, message, "system", hint=error.hint, is_final=True)


def written(event: Event) -> Result | None:
    """Return the result that a worker has sent, or has written into its action's directory."""
    return event.result or Result.read(event.action.folder)


def outcome(action: Action, event: Event) -> Result:
    """Return the result of an attempt that has ended."""
    if result := written(event):
        # The task can write the file, so its phase counts for nothing.
        phase: Phase = "timed_out" if event.kind == "timed_out" else "failed"
        return result._replace(phase=phase) if result.error else result
    # Without a result it has not succeeded, even if the engine reports success.
    why = event.why or "its process ended without a result"
    if event.kind == "succeeded":
        why = "its process ended with exit code 0, but without a result (os._exit?)"
    if event.out_of_memory:
        return Result("failed", error=Failure("OOMError", why))
    return Result("failed", error=Failure("RuntimeUnknownError", why, "system"))


def lost(event: Event) -> Result:
    """Return the result of an attempt whose worker was lost."""
    kind = "OOMError" if event.out_of_memory else "RuntimeSystemError"
    return Result("failed", error=Failure(kind, event.why, "lost"))
