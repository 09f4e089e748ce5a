"""Every error of ours. Each says what happened, why, and what to do, and has its own exit code.

The exit codes are part of the command line's contract: 1 the task failed, 2 usage, 3 preparation
failed or was refused, 4 not found, 5 aborted, 6 timed out, 130 interrupted. This module imports
nothing.
"""

from __future__ import annotations


class FlyteError(Exception):
    """Base of all: `what` happened, `why`, and the `hint` that says what to do next (both may be
    empty).
    """

    exit_code = 3

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what, why, hint)
        self.what, self.why, self.hint = what, why, hint

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.hint) if part)


# Usage: exit code 2.
class UsageError(FlyteError):
    """The command, the declaration or a value does not make sense as given."""

    exit_code = 2


class InputError(UsageError):
    """A value for a parameter is missing, unknown or of another type."""


class NoSuchTask(UsageError):
    """The file holds no task of that name."""


class DeclarationError(UsageError, ValueError):
    """An environment or a task is declared in a way that cannot work."""


# Preparation: exit code 3.
class PreparationError(FlyteError):
    """Something could not be prepared, or was refused."""


class ModuleLoadError(PreparationError):
    """Importing the user's file failed."""


class ScanError(PreparationError):
    """The tree of files cannot be bundled as it is."""


class SecretRefused(ScanError):
    """A file that looks like a credential would have gone into a bundle."""


class BudgetExceeded(ScanError):
    """More files, bytes or time than a bundle may take."""


class FileUnstable(ScanError):
    """A file kept changing while it was read."""


class ExtractionRefused(PreparationError):
    """A bundle's bytes do not make the tree that they claim to be."""


# Images.
class ImageBuildError(PreparationError):
    """An image or an environment cannot be made as it is declared."""


class NotLocked(ImageBuildError):
    """Something is not pinned in flyte.lock, and may not be resolved now."""


class EngineUnavailable(PreparationError):
    """What would execute something (a container engine) is not here, or cannot do it."""


# The store.
class StoreError(PreparationError):
    """The store on this machine cannot do what was asked."""


class StoreUnavailable(StoreError):
    """The disk is full or broken, or the directory cannot be written."""


class StoreFormatUnknown(StoreError):
    """The store was written by a newer version."""


class BlobMissing(StoreError):
    """No blob of that digest is here."""


class BlobCorrupt(StoreError):
    """A blob's bytes are not what its name says; it has been moved to quarantine."""


# Registries.
class ReferenceInvalid(UsageError):
    """A text is no name of a repository, a tag or a version."""


class RegistryError(PreparationError):
    """A registry cannot, or will not, do what was asked."""


class RegistryUnreachable(RegistryError):
    """It does not answer, or only with errors that may pass."""


class RegistryDenied(RegistryError):
    """It wants other credentials."""


class RegistryRefused(RegistryError):
    """It will not do that: deleting, or writing, may be switched off."""


class RegistryCorrupt(RegistryError):
    """What it sent is not what was asked for by digest, or is not well-formed."""


class RepositoryCorrupt(RegistryCorrupt):
    """Not a thing that it holds, but the whole of it is not what it should be: it is no registry,
    or an index cannot be read.
    """


class DeploymentError(PreparationError):
    """Something cannot be deployed as it is."""


# Not found: exit code 4.
class NotFound(FlyteError):
    """No such run, deployed task or version."""

    exit_code = 4


class RunExists(UsageError):
    """A run of that name is in the history already."""


# Runs. Names that Flyte 2 users catch; `kind` is "user" or "system".
class BaseRuntimeError(FlyteError):
    """A task did not succeed."""

    exit_code = 1
    kind = "user"

    def __init__(
        self, what: str, *, code: str = "", worker: str = "", why: str = "", hint: str = ""
    ) -> None:
        super().__init__(what, why=why, hint=hint)
        self.code = code or type(self).__name__
        self.worker = worker


class RuntimeUserError(BaseRuntimeError):
    """The task's own code raised."""


class RuntimeSystemError(BaseRuntimeError):
    """The task could not be run, or its worker was lost."""

    kind = "system"


class RuntimeUnknownError(BaseRuntimeError):
    """The task did not succeed, and nothing says why."""

    kind = "unknown"


class RuntimeDataValidationError(RuntimeUserError):
    """An input or an output is not of its declared type."""


class OOMError(RuntimeUserError):
    """The task used more memory than there was."""


class TaskTimeoutError(RuntimeUserError):
    """The task ran longer than its timeout."""

    exit_code = 6


class ActionAbortedError(RuntimeUserError):
    """The action was stopped by a person or a signal."""

    exit_code = 5


class InitializationError(RuntimeUserError):
    """Something needs `flyte.init()` or a configuration first."""
