"""Exceptions of children keep their class, their text and their attributes on the way to a caller."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from flyte_build import errors
from flyte_build.runner.result import Result
from flyte_build.runner.sources import Sources
from flyte_build.runner.worker.execute import failure
from flyte_build.runner.worker.raised import error_of, with_face

pytestmark = pytest.mark.quick


class OwnError(OSError):
    """An error whose constructor takes something else than that of its base."""

    def __init__(self, disk: str) -> None:
        super().__init__(errno.EIO, "broken", disk)
        self.disk = disk


class FixedError(Exception):
    """An error with a property that has the name of one of ours."""

    @property
    def kind(self) -> str:
        return "fixed"


def raises_fixed() -> None:
    raise FixedError("text")


def raises_own() -> None:
    raise OwnError("sda")


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "missing file": (lambda: os.stat("/nowhere"), {"errno": errno.ENOENT, "filename": "/nowhere"}),
    "text": (b"a\xff".decode, {"encoding": "utf-8", "object": b"a\xff", "start": 1}),
    "syntax": (lambda: compile("a b", "some.py", "exec"), {"filename": "some.py", "lineno": 1}),
    "module": (lambda: __import__("nowhere"), {"name": "nowhere"}),
    "attribute": (lambda: getattr(1, "color"), {"name": "color"}),  # noqa: B009
    "key": (lambda: os.environ["COLOR"], {"args": ("COLOR",)}),
    "division": (lambda: 1 / 0, {}),
    "property": (raises_fixed, {"args": ("text",)}),
    "own": (raises_own, {"disk": "sda", "errno": errno.EIO, "filename": "sda"}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_exception_arrives_as_it_was_raised(case: str) -> None:
    """Builtin classes store attributes outside of `args`, and are made by constructors of C."""
    raising, attributes = CASES[case]
    with pytest.raises(Exception) as caught:
        raising()
    error = caught.value
    sent = Result.decoded(failure(error, Sources("/project")).encoded())
    assert sent is not None
    for found in (error_of("env.task", "a1", sent), with_face(error, "a1")):
        assert isinstance(found, type(error)) and isinstance(found, errors.RuntimeUserError)
        assert str(found) == str(error) and found.code == type(error).__name__
        assert {name: getattr(found, name) for name in attributes} == attributes
