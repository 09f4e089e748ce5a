"""The programs that some tests need beside Python, by the names that `FLYTE_TEST_REQUIRE` knows."""

from __future__ import annotations

import os
import shutil

import pytest

PROGRAMS = {
    "docker": ("dockerd", "docker", "mmdebstrap"),
    "git": ("git",),
    "proxy": ("tinyproxy",),
    "registry": ("docker-registry", "htpasswd", "openssl"),
    "skopeo": ("skopeo",),
}
_REQUIRED = {name for name in os.environ.get("FLYTE_TEST_REQUIRE", "").split(",") if name}
if unknown := ", ".join(sorted(_REQUIRED - PROGRAMS.keys())):
    raise pytest.UsageError(
        f"FLYTE_TEST_REQUIRE names {unknown}; it may name {', '.join(PROGRAMS)}"
    )


def need(name: str) -> None:
    """Skip the test that calls this where `name` is not installed, and fail it where
    `FLYTE_TEST_REQUIRE` names it.
    """
    missing = ", ".join(program for program in PROGRAMS[name] if shutil.which(program) is None)
    if missing and name in _REQUIRED:
        pytest.fail(
            f"{missing} is not installed, and FLYTE_TEST_REQUIRE names {name}", pytrace=False
        )
    if missing:
        pytest.skip(f"needs {missing}")
