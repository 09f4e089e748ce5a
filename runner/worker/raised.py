"""Exceptions of tasks on their way to the tasks that have called them.

The class travels by name, its `args` and attributes as a pickle. In the caller, the exception has
two faces: it is of its own class if that can be imported, and one of `flyte.errors`.
"""

from __future__ import annotations

import importlib
import pickle
from base64 import b64decode, b64encode
from collections.abc import Mapping
from functools import lru_cache
from types import MemberDescriptorType
from typing import Any, cast

import flyte_build.errors as errors
from flyte_build.runner.result import Failure, Result
from flyte_build.workspace.tracebacks import message_of

_LONGEST = 1 << 16  # Bytes of an exception's pickled state; a larger one stays behind.
_FACES = {"user": errors.RuntimeUserError, "unknown": errors.RuntimeUnknownError}
_HEAPTYPE = 1 << 9  # Of `type.__flags__`: the class is not a static one of C.
_ADDED = frozenset(("what", "why", "hint", "code", "kind", "worker"))  # To classes of users.


class RemoteTraceback(Exception):
    """Traceback of another process, as text: the cause of the exception that came from there."""

    __module__ = "flyte"  # Shown in tracebacks.

    def __str__(self) -> str:
        return f"\n{self.args[0].rstrip()}"


def class_of(error: BaseException) -> str:
    """Return the name of an exception's class, by which a caller can import it."""
    cls = getattr(type(error), "_flyte_original", type(error))
    return f"{cls.__module__}:{cls.__qualname__}"


def state_of(error: BaseException) -> str:
    """Return the `args` and the attributes of an exception, or "" if they cannot be pickled."""
    added = _ADDED if hasattr(type(error), "_flyte_original") else ()
    attributes = {
        name: value
        for name, value in {**_members(error), **vars(error)}.items()
        if name not in added and _pickles(value)
    }
    if not _pickles(error.args):
        return ""
    data = pickle.dumps((error.args, attributes), protocol=5)
    return b64encode(data).decode("ascii") if len(data) <= _LONGEST else ""


def error_of(task: str, id: str, result: Result) -> BaseException:
    """Return the exception for a child that did not succeed."""
    failure = result.error
    assert failure is not None
    if (group := _group_of(failure)) is not None:
        group.__cause__ = RemoteTraceback(failure.traceback) if failure.traceback else None
        return group
    cls = _class(failure)
    error: Any = _new(cls)
    error.args = (failure.message,)
    _set_all(error, _face(failure.message, failure.hint, failure.type, failure.kind, id))
    _restore(error, failure)
    if failure.traceback:
        error.__cause__ = RemoteTraceback(failure.traceback)
    else:
        error.add_note(f"Raised by {task} ({id}).")
    return cast(BaseException, error)


def _group_of(failure: Failure) -> BaseException | None:
    """Return the group of exceptions that a child has raised; it has no other face."""
    original: Any = _import(failure.cls)
    if original is None or not issubclass(original, ExceptionGroup) or not failure.state:
        return None
    try:
        args, _ = pickle.loads(b64decode(failure.state))
        return cast(BaseException, original(*args))
    except Exception:  # A class among them may be missing here, or may raise anything.
        return None


def with_face(error: BaseException, id: str) -> BaseException:
    """Return an exception of this process as one that is also of `flyte.errors`.

    Errors of ours, and exceptions that end programs or loops, are returned as they are.
    """
    if isinstance(error, errors.FlyteError | ExceptionGroup) or not isinstance(error, Exception):
        return error
    original: Any = type(error)
    cls = _both(errors.RuntimeUserError, original)
    faced: Any = _new(cls)
    faced.args = error.args
    _set_all(faced, {**_members(error), **vars(error)})
    _set_all(faced, _face(message_of(error), "", type(error).__name__, "user", id))
    faced.__cause__, faced.__context__ = error.__cause__, error.__context__
    return cast(BaseException, faced.with_traceback(error.__traceback__))


def refusal_of(problem: Mapping[str, str]) -> errors.FlyteError:
    """Return the exception for a child that the controller refused to call."""
    kind = getattr(errors, problem["type"], errors.PreparationError)
    more = {"why": problem.get("why", ""), "hint": problem.get("hint", "")}
    try:
        refusal: errors.FlyteError = kind(problem["message"], **more)
    except TypeError:  # Constructors of some errors that tasks raise take more.
        refusal = errors.PreparationError(problem["message"], **more)
    return refusal


def _class(failure: Failure) -> type[BaseException]:
    """Return the class of a child's exception: its own, with the face of one of ours."""
    original: Any = _import(failure.cls)
    if original is not None and issubclass(original, errors.BaseRuntimeError):
        return cast(type[BaseException], original)
    named = getattr(errors, failure.type, None)
    if isinstance(named, type) and issubclass(named, errors.BaseRuntimeError):
        return named
    face = _FACES.get(failure.kind, errors.RuntimeSystemError)
    # An exception that ends programs or loops must not end those of its caller.
    if original is None or not issubclass(original, Exception):
        return face
    return face if issubclass(original, ExceptionGroup) else _both(face, original)


@lru_cache
def _both(face: Any, original: Any) -> Any:
    """Return a class that is both, with the name and the text of the original.

    It is the same for the same classes.
    """
    namespace = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__str__": original.__str__,
        "_flyte_original": original,
    }
    try:
        return type(original.__name__, (face, original), namespace)
    except TypeError:  # It cannot be derived from, or not together with the other one.
        return face


def _new(cls: Any) -> Any:
    """Return a new exception, without its initializer.

    Of the constructors among its bases, only that of its layout makes it: `OSError` has its own.
    """
    base = cls
    while base.__flags__ & _HEAPTYPE:
        base = base.__base__
    return base.__new__(cls)


def _members(error: BaseException) -> dict[str, Any]:
    """Return the attributes of an exception that its builtin class stores outside of `vars`.

    The object that lacks an attribute (`obj`) may be anything, and stays where it is.
    """
    return {
        name: value
        for cls in type(error).__mro__
        if not cls.__flags__ & _HEAPTYPE
        for name, member in vars(cls).items()
        if isinstance(member, MemberDescriptorType)
        and name != "obj"
        and not name.startswith("__")
        and (value := getattr(error, name, None)) is not None
    }


def _import(name: str) -> type[BaseException] | None:
    module, _, path = name.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in path.split("."):
            value = getattr(value, part)
    except Exception:  # The module may raise anything, or may not be there.
        return None
    return value if isinstance(value, type) and issubclass(value, BaseException) else None


def _restore(error: BaseException, failure: Failure) -> None:
    """Give an exception the arguments and the attributes of the original."""
    if not failure.state:
        return
    try:
        args, attributes = pickle.loads(b64decode(failure.state))
    except Exception:  # A class among them may be missing here, or may raise anything.
        return
    if args:
        error.args = args
    _set_all(error, attributes)


def _face(message: str, hint: str, code: str, kind: str, id: str) -> dict[str, str]:
    """Return the attributes that errors of ours have."""
    return {"what": message, "why": "", "hint": hint, "code": code, "kind": kind, "worker": id}


def _set_all(error: BaseException, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        try:
            setattr(error, name, value)
        except Exception:  # A property of the user's class.
            continue


def _pickles(value: Any) -> bool:
    try:
        pickle.dumps(value, protocol=5)
    except Exception:  # The object's own methods may raise anything.
        return False
    return True
