"""A project whose image has packages from a directory of wheels: no network is needed."""

from __future__ import annotations

import pytest

from flyte_build.images.platforms import PYTHON
from tests.support.bases import MadeWheel, base_of
from tests.support.command import Shell
from tests.support.listening import Answer, Exchange, Listener

LINKS = "--no-index --find-links wheels"


@pytest.fixture
def shop(flyte: Shell) -> Shell:
    """A project with a directory of wheels, and a layout with the Debian base.

    No network is needed.
    """
    wheels = flyte.project / "wheels"
    for version in ("1.0", "2.0"):
        MadeWheel(
            "alpha", version, {"alpha.py": f"VERSION = {version!r}\n".encode()}, requires=["beta"]
        ).write(wheels)
        MadeWheel("beta", version, {"beta.py": f"VERSION = {version!r}\n".encode()}).write(wheels)
    layout = flyte.home.parent / "bases"
    base_of(f"oci:{layout}", tag=PYTHON)
    flyte.variables["FLYTE_IMAGE_BASE"] = f"oci:{layout}:{{python}}"
    flyte.variables["UV_CACHE_DIR"] = str(flyte.home.parent / "uv")
    declare(flyte, '.with_pip_packages("alpha", extra_args=LINKS)')
    return flyte


def declare(
    shop: Shell, steps: str, file: str = "tasks.py", base: str = "from_debian_base()"
) -> None:
    """Write a task in an image of these steps, which returns the versions of its packages."""
    (shop.project / file).write_text(f"""
import flyte
LINKS = {LINKS!r}
env = flyte.TaskEnvironment(name={file.removesuffix(".py")!r}, image=flyte.Image.{base}{steps})

@env.task
def versions() -> dict[str, str]:
    import importlib.metadata
    return {{each.name: each.version for each in importlib.metadata.distributions()}}
""")


class PrivateIndex(Listener):
    """An index of the shop's wheels for users with the login `me`, `s3cret`."""

    def __init__(self, shop: Shell) -> None:
        super().__init__()
        self._wheels = shop.project / "wheels"

    def respond(self, exchange: Exchange) -> Answer:
        exchange.drain()
        if exchange.headers["Authorization"] != "Basic bWU6czNjcmV0":
            return Answer.of(401, [("WWW-Authenticate", "Basic")], b"")
        name = exchange.path.rstrip("/").rpartition("/")[2]
        if name.endswith(".whl"):
            return Answer.of(
                200,
                [("Content-Type", "application/octet-stream")],
                (self._wheels / name).read_bytes(),
            )
        links = "".join(
            f'<a href="/files/{each.name}">{each.name}</a>'
            for each in sorted(self._wheels.glob(f"{name}-1.0-*"))
        )
        return Answer.of(200, [("Content-Type", "text/html")], links.encode())
