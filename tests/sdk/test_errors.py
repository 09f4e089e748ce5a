"""Errors that tasks raise and catch: the names, bases and parameters of Flyte 2."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from flyte_build import errors

pytestmark = pytest.mark.quick

CODED = [
    "RuntimeUserError",
    "RuntimeSystemError",
    "RuntimeUnknownError",
    "OOMError",
    "RetriesExhaustedError",
    "TaskInterruptedError",
    "PrimaryContainerNotFoundError",
    "InvalidImageNameError",
    "ImagePullBackOffError",
    "NotInTaskContextError",
]
PLAIN = [
    "TaskTimeoutError",
    "MaxRuntimeExceededError",
    "MaxQueuedTimeExceededError",
    "DeadlineExceededError",
    "ConditionTimedoutError",
    "ConditionAlreadyExistsError",
    "ConditionFailedError",
    "ConditionNotFoundError",
    "NonRecoverableError",
    "ActionAbortedError",
    "DeploymentError",
    "ImageBuildError",
    "ModuleLoadError",
    "CodeBundleError",
    "InlineIOMaxBytesBreached",
    "SyncTaskCallInAsyncContextError",
    "OnlyAsyncIOSupportedError",
    "TraceDoesNotAllowNestedTasksError",
    "ParameterMaterializationError",
    "RestrictedTypeError",
    "RemoteTaskNotFoundError",
    "RemoteTaskUsageError",
    "SlowDownError",
    "InitializationError",
]
EXIT_CODES = {
    "TaskTimeoutError": 6,
    "MaxRuntimeExceededError": 6,
    "MaxQueuedTimeExceededError": 6,
    "DeadlineExceededError": 6,
    "ActionAbortedError": 5,
    "RemoteTaskNotFoundError": 4,
    "DeploymentError": 3,
    "ImageBuildError": 3,
    "ModuleLoadError": 3,
    "CodeBundleError": 3,
    "RemoteTaskUsageError": 2,
}


def _made(name: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(errors, name)(*args, **kwargs)


@pytest.mark.parametrize("name", CODED)
def test_an_error_with_a_code(name: str) -> None:
    """The parameters are `(code, message, worker=None)`, and ours are keywords."""
    error = _made(name, "c", "m")
    kind = {"RuntimeSystemError": "system", "RuntimeUnknownError": "unknown"}.get(name, "user")
    assert (error.code, str(error), error.worker, error.kind) == ("c", "m", None, kind)
    assert isinstance(error, errors.BaseRuntimeError | RuntimeError) and error.args == ("m",)
    assert _made(name, "c", "m", "w").worker == "w"
    explained = _made(name, code="c", message="m", why="because", hint="do")
    assert str(explained) == "m\nbecause\ndo" and explained.what == "m"
    assert explained.exit_code == 1
    with pytest.raises(TypeError):
        _made(name, "m")


@pytest.mark.parametrize("name", PLAIN)
def test_an_error_with_its_own_code(name: str) -> None:
    """The only parameter is the message, and the code is the name of the class."""
    error = _made(name, "m")
    assert (error.code, str(error), error.kind) == (name, "m", "user")
    assert isinstance(error, errors.FlyteError) and isinstance(error, errors.BaseRuntimeError)
    assert isinstance(error, errors.RuntimeUserError) is (name != "InitializationError")
    assert str(_made(name, "m", why="because", hint="do")) == "m\nbecause\ndo"
    assert error.exit_code == EXIT_CODES.get(name, 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.BaseRuntimeError("c", "system", "m"), ("c", "system", "m")),
        (errors.InitializationError("c", "system", "m"), ("c", "system", "m")),
        (errors.NonRecoverableError("m", code="c"), ("c", "user", "m")),
        (errors.NonRecoverableError("m", "c"), ("c", "user", "m")),
        (errors.TaskTimeoutError("m", "c"), ("c", "user", "m")),
        (errors.CustomError("c", "m"), ("c", "user", "m")),
        (errors.CustomError.from_exception(KeyError("k")), ("KeyError", "user", "'k'")),
        (
            errors.RuntimeDataValidationError("x", ValueError("no"), "env.task"),
            ("DataValidationError", "user", "env.task: x: no"),
        ),
        (errors.RuntimeDataValidationError("m"), ("DataValidationError", "user", "m")),
        (errors.LogsNotYetAvailableError("m"), ("LogsNotYetAvailable", "system", "m")),
        (
            errors.InvalidPackageError("p", "not found"),
            ("InvalidPackageError", "user", "No system package named 'p'\nnot found"),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_with_parameters_of_its_own(error: Any, expected: tuple[str, str, str]) -> None:
    assert (error.code, error.kind, str(error)) == expected


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("BaseRuntimeError", "FlyteError"),
        ("MaxRuntimeExceededError", "TaskTimeoutError"),
        ("MaxQueuedTimeExceededError", "TaskTimeoutError"),
        ("DeadlineExceededError", "TaskTimeoutError"),
        ("ResourceExhaustedError", "SlowDownError"),
        ("ScanError", "CodeBundleError"),
        ("NotLocked", "ImageBuildError"),
        ("ImageBuildError", "PreparationError"),
        ("RemoteTaskNotFoundError", "NotFound"),
        ("ActionNotFoundError", "NotFound"),
        ("DeclarationTypeError", "DeclarationError"),
    ],
)
def test_an_error_is_caught_by_its_base(name: str, base: str) -> None:
    assert issubclass(getattr(errors, name), getattr(errors, base))


def test_a_custom_error_has_its_cause() -> None:
    cause = ValueError("no")
    assert errors.CustomError.from_exception(cause).__cause__ is cause


@pytest.mark.parametrize("name", [*CODED, *PLAIN, "InputError", "CustomError"])
def test_an_error_survives_pickling(name: str) -> None:
    """A pool of processes pickles the error of a task, whatever its constructor takes."""
    error = (
        _made(name, "m")
        if name in PLAIN
        else _made(name, "c", "m")
        if name != "InputError"
        else errors.InputError("m", why="because")
    )
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(same) is type(error)
        assert (str(same), vars(same), same.args) == (str(error), vars(error), error.args)
