"""The programs that some tests need beside Python, and the Debian packages that have them.

As a script it prints the packages of the missing ones; it needs the standard library alone.
"""

from __future__ import annotations

import shutil

NEEDS = {
    "docker": {"dockerd": "docker.io", "docker": "docker.io", "mmdebstrap": "mmdebstrap"},
    "git": {"git": "git"},
    "proxy": {"tinyproxy": "tinyproxy-bin"},
    "registry": {
        "docker-registry": "docker-registry",
        "htpasswd": "apache2-utils",
        "openssl": "openssl",
    },
    "skopeo": {"skopeo": "skopeo"},
}
"""The programs of each need, by the names that `FLYTE_TEST_REQUIRE` knows."""


def missing(*needs: str) -> dict[str, str]:
    """Return the missing programs of these needs, each with its package."""
    return {
        program: package
        for need in needs
        for program, package in NEEDS[need].items()
        if shutil.which(program) is None
    }


def install(packages: dict[str, str]) -> str:
    """Return the command that installs these programs."""
    return f"apt-get install {' '.join(sorted(set(packages.values())))}"


if __name__ == "__main__":
    print(*sorted(set(missing(*NEEDS).values())))
