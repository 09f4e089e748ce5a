"""All errors that flyte-build raises: what happened, why, and what to do about it.

Each class has an exit code, which is part of the command line's contract: 1 the task failed, 2
usage, 3 preparation failed or was refused, 4 not found, 5 aborted, 6 timed out, 130 interrupted.
This module imports nothing.
"""

from __future__ import annotations


class FlyteError(Exception):
    """Base class of all errors: `what` happened, `why`, and a `hint` what to do next.

    `why` and `hint` may be empty.
    """

    exit_code = 3

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what, why, hint)
        self.what, self.why, self.hint = what, why, hint

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.hint) if part)


# Usage: exit code 2.
class UsageError(FlyteError):
    """An invalid command, declaration or value."""

    exit_code = 2


class InputError(UsageError):
    """A value for a parameter that is missing, unknown or of the wrong type."""


class NoSuchTask(UsageError):
    """A task name that the file does not define."""


class DeclarationError(UsageError, ValueError):
    """An invalid declaration of an environment or a task."""


# Preparation: exit code 3.
class PreparationError(FlyteError):
    """A preparation that failed or was refused."""


class ModuleLoadError(PreparationError):
    """A failed import of the user's file."""


class ScanError(PreparationError):
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
class ImageBuildError(PreparationError):
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


class DeploymentError(PreparationError):
    """An environment that cannot be deployed as it is."""


# Not found: exit code 4.
class NotFound(FlyteError):
    """A run, deployed task or version that does not exist."""

    exit_code = 4


class RunExists(UsageError):
    """A run name that is already in the history."""


# Runs. The names are those that Flyte 2 users catch; `kind` is "user", "system" or "unknown".
class BaseRuntimeError(FlyteError):
    """A task that did not succeed."""

    exit_code = 1
    kind = "user"

    def __init__(
        self, what: str, *, code: str = "", worker: str = "", why: str = "", hint: str = ""
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.code = code or type(self).__name__
        self.worker = worker


class RuntimeUserError(BaseRuntimeError):
    """An error in the task's own code."""


class RuntimeSystemError(BaseRuntimeError):
    """A task that could not be run, or whose worker was lost."""

    kind = "system"


class RuntimeUnknownError(BaseRuntimeError):
    """A task that did not succeed for an unknown reason."""

    kind = "unknown"


class RuntimeDataValidationError(RuntimeUserError):
    """An input or output that does not have its declared type."""


class OOMError(RuntimeUserError):
    """A task that ran out of memory."""


class TaskTimeoutError(RuntimeUserError):
    """A task that ran longer than its timeout."""

    exit_code = 6


class MaxRuntimeExceededError(TaskTimeoutError):
    """An attempt of a task that ran longer than its `timeout`."""


class MaxQueuedTimeExceededError(TaskTimeoutError):
    """A task that waited longer than its `max_queued_time` for a place to run."""


class DeadlineExceededError(TaskTimeoutError):
    """A task that did not end, with all of its attempts, before its `deadline`."""


class ActionAbortedError(RuntimeUserError):
    """An action that was aborted by a user or a signal."""

    exit_code = 5


class InitializationError(RuntimeUserError):
    """An operation that needs `flyte.init()` or a configuration first."""
