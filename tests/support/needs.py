"""Tests that need more than Python: they are skipped, or fail, if it is missing."""

from __future__ import annotations

import os

import pytest

from tests.support.programs import NEEDS, missing

_REQUIRED = {name for name in os.environ.get("FLYTE_TEST_REQUIRE", "").split(",") if name}
if unknown := ", ".join(sorted(_REQUIRED - NEEDS.keys())):
    raise pytest.UsageError(f"FLYTE_TEST_REQUIRE names {unknown}; it may name {', '.join(NEEDS)}")


def need(name: str) -> None:
    """Skip the calling test if a program of `name` is missing, or fail it on request.

    `FLYTE_TEST_REQUIRE` requests that.
    """
    if absent := ", ".join(missing(name)):
        if name in _REQUIRED:
            pytest.fail(f"{absent} is missing, and FLYTE_TEST_REQUIRE names {name}", pytrace=False)
        pytest.skip(f"needs {absent}")
