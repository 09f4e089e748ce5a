"""All errors of flyte-build: what happened, why, and what to do about it.

Each class has an exit code, which is part of the command line's contract: 1 the task failed, 2
usage, 3 preparation failed or was refused, 4 not found, 5 aborted, 6 timed out, 130 interrupted.
This module imports nothing.

The subclasses of `BaseRuntimeError` have the names, bases and positional parameters of Flyte 2,
because tasks raise and catch them. Each of them also accepts `why` and `hint` as keywords.
"""

from __future__ import annotations

TYPE_CHECKING = False  # Type checkers know this name; importing `typing` would take too long.
if TYPE_CHECKING:
    from typing import Any, Literal, Self

    Kind = Literal["user", "system", "unknown"]


class FlyteError(Exception):
    """Base class of all errors: `what` happened, `why`, and a `hint` what to do next.

    `why` and `hint` may be empty.
    """

    exit_code = 3

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.hint = what, why, hint

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.hint) if part)

    def __reduce__(self) -> tuple[Any, ...]:
        return _copy, (type(self), self.args), self.__dict__


def _copy(kind: type[FlyteError], args: tuple[Any, ...]) -> FlyteError:
    """Return an error whose attributes are set later: constructors differ in their parameters."""
    return kind.__new__(kind, *args)


# Runs: exit code 1.
class BaseRuntimeError(FlyteError, RuntimeError):
    """A task that did not succeed, or an operation on one.

    `code` tells kinds of failures apart (default: the name of the class), `kind` is "user",
    "system" or "unknown", and `worker` names the process that ran the task, if known.
    """

    exit_code = 1

    def __init__(
        self,
        code: str,
        kind: Kind,
        root_cause_message: str,
        worker: str | None = None,
        *,
        why: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(root_cause_message, why=why, hint=hint)
        self.code, self.kind, self.worker = code, kind, worker


class _CodedError(BaseRuntimeError):
    """An error whose kind is the one of its class."""

    kind: Kind = "user"

    def __init__(
        self, code: str, message: str, worker: str | None = None, *, why: str = "", hint: str = ""
    ) -> None:
        super().__init__(code, self.kind, message, worker, why=why, hint=hint)


class RuntimeUserError(_CodedError):
    """An error in the task's own code."""


class RuntimeSystemError(_CodedError):
    """A task that could not be run, or whose worker was lost."""

    kind = "system"


class RuntimeUnknownError(_CodedError):
    """A task that did not succeed for an unknown reason."""

    kind = "unknown"


class OOMError(RuntimeUserError):
    """A task that ran out of memory."""


class RetriesExhaustedError(RuntimeUserError):
    """A task that failed in each of its attempts."""


class TaskInterruptedError(RuntimeUserError):
    """A task whose machine was withdrawn."""


class PrimaryContainerNotFoundError(RuntimeUserError):
    """A pod without the container that runs the task."""


class InvalidImageNameError(RuntimeUserError):
    """An image whose name is not a valid reference."""


class ImagePullBackOffError(RuntimeUserError):
    """An image that cannot be pulled."""


class NotInTaskContextError(RuntimeUserError):
    """An operation that only works inside a task."""


class CustomError(RuntimeUserError):
    """An error with a code of the user's choice."""

    def __init__(self, code: str, message: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(code, message, why=why, hint=hint)

    @classmethod
    def from_exception(cls, e: Exception) -> Self:
        """Return an error with the name of the exception's class as code, caused by it."""
        error = cls(type(e).__name__, str(e))
        error.__cause__ = e
        return error


class _UserError(RuntimeUserError):
    """An error that is constructed from its message; its code is the name of its class."""

    def __init__(self, message: str, *, code: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(code or type(self).__name__, message, why=why, hint=hint)


class NonRecoverableError(_UserError):
    """An error after which the task is not retried."""

    def __init__(
        self, message: str, code: str = "NonRecoverableError", *, why: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, code=code, why=why, hint=hint)


class TaskTimeoutError(_UserError):
    """A task that ran longer than its timeout."""

    exit_code = 6

    def __init__(self, message: str, code: str = "", *, why: str = "", hint: str = "") -> None:
        super().__init__(message, code=code, why=why, hint=hint)


class MaxRuntimeExceededError(TaskTimeoutError):
    """An attempt that ran longer than `max_runtime`."""


class MaxQueuedTimeExceededError(TaskTimeoutError):
    """A task that waited longer than `max_queued_time` before it started."""


class DeadlineExceededError(TaskTimeoutError):
    """A task that did not end before its `deadline`, all attempts together."""


class ActionAbortedError(_UserError):
    """An action that was aborted by a user or a signal."""

    exit_code = 5


class RuntimeDataValidationError(RuntimeUserError):
    """An input or output that does not have its declared type.

    The message alone is enough; or pass the input's name, the reason, and the task's name.
    """

    def __init__(
        self,
        var: str,
        e: Exception | str = "",
        task_name: str = "",
        *,
        why: str = "",
        hint: str = "",
    ) -> None:
        message = ": ".join(str(part) for part in (task_name, var, e) if str(part))
        super().__init__("DataValidationError", message, why=why, hint=hint)


class InlineIOMaxBytesBreached(_UserError):
    """Inputs or outputs that are larger than `max_inline_io_bytes`."""


class SyncTaskCallInAsyncContextError(_UserError):
    """A call that would block the event loop."""


class OnlyAsyncIOSupportedError(_UserError):
    """An operation that only exists as a coroutine."""


class TraceDoesNotAllowNestedTasksError(_UserError):
    """A task that was called in a traced function."""


class ParameterMaterializationError(_UserError):
    """A parameter whose value could not be fetched."""


class RestrictedTypeError(_UserError):
    """A type that is not allowed as an input or output."""


class ConditionAlreadyExistsError(_UserError):
    """A condition whose name is already used in the run."""


class ConditionFailedError(_UserError):
    """A condition that failed."""


class ConditionNotFoundError(_UserError):
    """A condition that does not exist."""


class ConditionTimedoutError(_UserError):
    """A condition that was not signalled in time."""


class SlowDownError(_UserError):
    """A request that was refused because there were too many."""


class ResourceExhaustedError(SlowDownError):
    """A request that was refused because a limit was reached."""


class InvalidPackageError(_UserError):
    """A system package that does not exist."""

    def __init__(self, package_name: str, original_error: str) -> None:
        super().__init__(f"No system package named {package_name!r}", why=original_error)
        self.package_name, self.original_error = package_name, original_error


class LogsNotYetAvailableError(BaseRuntimeError):
    """Logs of an action that has not started yet."""

    def __init__(self, message: str, *, why: str = "", hint: str = "") -> None:
        super().__init__("LogsNotYetAvailable", "system", message, why=why, hint=hint)


class InitializationError(BaseRuntimeError):
    """An operation that needs `flyte.init()` or a configuration first.

    The message alone is enough; or pass a code, a kind and the message.
    """

    def __init__(
        self,
        code: str,
        kind: Kind = "user",
        root_cause_message: str = "",
        worker: str | None = None,
        *,
        why: str = "",
        hint: str = "",
    ) -> None:
        if not root_cause_message:
            code, root_cause_message = type(self).__name__, code
        super().__init__(code, kind, root_cause_message, worker, why=why, hint=hint)


# Usage: exit code 2.
class UsageError(FlyteError):
    """An invalid command, declaration or value."""

    exit_code = 2


class InputError(UsageError):
    """A value for a parameter that is missing, unknown or of the wrong type."""


class NoSuchTask(UsageError):
    """A task name that the file does not define."""


class RemoteTaskUsageError(UsageError, _UserError):
    """A deployed task that was called in a way that it does not support."""


class DeclarationError(UsageError, ValueError):
    """An invalid declaration of an environment or a task."""


class DeclarationTypeError(DeclarationError, TypeError):
    """A declaration with a value of a wrong type, or with an unknown name."""


# Preparation: exit code 3.
class PreparationError(FlyteError):
    """A preparation that failed or was refused."""

    exit_code = 3


class ModuleLoadError(PreparationError, _UserError):
    """A failed import of the user's file."""


class CodeBundleError(PreparationError, _UserError):
    """Code that cannot be bundled."""


class ScanError(CodeBundleError):
    """A tree of files that cannot be bundled as it is."""


class SecretRefused(ScanError):
    """A file that looks like a credential and would have gone into a bundle."""


class BudgetExceeded(ScanError):
    """More files, bytes or time than a bundle may take."""


class FileUnstable(ScanError):
    """A file that kept changing while it was read."""


class ExtractionRefused(PreparationError):
    """A bundle whose bytes do not match the tree that it claims to be."""


# Images.
class ImageBuildError(PreparationError, _UserError):
    """An image or an environment that cannot be built as declared."""


class NotLocked(ImageBuildError):
    """A requirement that flyte.lock does not pin, and that may not be resolved now."""


class EngineUnavailable(PreparationError):
    """An engine, such as Docker, that is missing or not capable of what is needed."""


# The store.
class StoreError(PreparationError):
    """A failure of the store on this machine."""


class StoreUnavailable(StoreError):
    """A disk that is full or broken, or a directory that is not writable."""


class StoreFormatUnknown(StoreError):
    """A store that was written by a newer version."""


class BlobMissing(StoreError):
    """A blob that is missing."""


class BlobCorrupt(StoreError):
    """A blob whose bytes do not match its digest; it has been moved to quarantine."""


# Registries.
class ReferenceInvalid(UsageError):
    """A string that is not a valid name of a repository, a tag or a version."""


class RegistryError(PreparationError):
    """A failure of a registry, or of a request to it."""


class RegistryUnreachable(RegistryError):
    """A registry that does not respond, or only with errors that may pass."""


class RegistryDenied(RegistryError):
    """A registry that requires other credentials."""


class RegistryRefused(RegistryError):
    """A registry that refuses a request: deletion or uploads may be disabled."""


class RegistryCorrupt(RegistryError):
    """A response that does not match the requested digest, or is malformed."""


class RepositoryCorrupt(RegistryCorrupt):
    """A repository that is broken as a whole: not a registry, or with an unreadable index."""


class DeploymentError(PreparationError, _UserError):
    """An environment that cannot be deployed as it is."""


# Not found: exit code 4.
class NotFound(FlyteError):
    """A run, deployed task or version that does not exist."""

    exit_code = 4


class ActionNotFoundError(NotFound, RuntimeError):
    """An action that does not exist."""


class RemoteTaskNotFoundError(NotFound, _UserError):
    """A deployed task that does not exist."""


class RunExists(UsageError):
    """A run name that is already in the history."""
