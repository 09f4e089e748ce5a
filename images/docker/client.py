"""The Docker Engine of this machine, through docker-py: reaching it, and what it says when it
cannot do something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flyte_build.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker import APIClient

_TIMEOUT = 600  # Seconds that one answer may take: loading a large image takes long.


def connect() -> APIClient:
    """A client of the engine that DOCKER_HOST names, or of this machine's. Raises
    `EngineUnavailable`.
    """
    from docker import APIClient
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    try:
        return APIClient(version="auto", timeout=_TIMEOUT, **kwargs_from_env())
    except (DockerException, OSError, ValueError) as error:
        raise EngineUnavailable(
            "Docker cannot be reached",
            why=_innermost(error),
            hint="Start it (`docker info` must answer), or set DOCKER_HOST.",
        ) from None


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Raise what the engine answers as `EngineUnavailable`; `what` says what could not be done, as
    in "start a container".
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, RequestException) as error:
        raise EngineUnavailable(f"Docker could not {what}", why=_innermost(error)) from None


def remove_container(client: APIClient, container: str) -> None:
    """Remove a container, whether or not it runs. If that fails it is an orphan, or another command
    has removed it.
    """
    try:
        with asking("remove a container"):
            client.remove_container(container, force=True)
    except EngineUnavailable:
        return


def remove_orphans(
    client: APIClient, label: str, is_owned: Callable[[Mapping[str, str]], bool]
) -> None:
    """Remove the containers with a label (`NAME` or `NAME=VALUE`) whose labels say that nobody owns
    them any more.

    Raises `EngineUnavailable` if they cannot be listed.
    """
    with asking("list containers"):
        found = client.containers(all=True, filters={"label": label})
    for each in found:
        if not is_owned(each["Labels"]):
            remove_container(client, each["Id"])


def _innermost(error: BaseException) -> str:
    """What went wrong, without the names of the libraries that it went through."""
    explanation = getattr(error, "explanation", None)
    if explanation:
        return str(explanation)
    reason, seen = error, list[BaseException]()
    while reason not in seen:
        seen.append(reason)
        if isinstance(reason, OSError) and reason.strerror:
            return reason.strerror
        inner = [
            each
            for each in (
                *reason.args,
                getattr(reason, "reason", None),
                reason.__cause__,
                reason.__context__,
            )
            if isinstance(each, BaseException)
        ]
        reason = inner[0] if inner else reason
    return str(reason)
