"""Access to the Docker Engine through docker-py: connecting, error messages, containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flyte_build.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker import APIClient

_TIMEOUT = 600  # Seconds per response; loading a large image takes long.


def connect() -> APIClient:
    """Return a client of the engine that DOCKER_HOST names, or of the local one.

    Raises `EngineUnavailable` if it cannot be reached.
    """
    from docker import APIClient
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    try:
        return APIClient(version="auto", timeout=_TIMEOUT, **kwargs_from_env())
    except (DockerException, OSError, ValueError) as error:
        raise EngineUnavailable(
            "Cannot reach Docker",
            why=_innermost(error),
            hint="Start it (`docker info` must succeed), or set DOCKER_HOST.",
        ) from None


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Raise errors of the engine in the body as `EngineUnavailable`.

    `what` names the work for the message, as in "start a container".
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, RequestException, ConnectionError) as error:
        raise EngineUnavailable(f"Docker could not {what}", why=_innermost(error)) from None


def remove_container(client: APIClient, container: str) -> None:
    """Remove a container, running or not.

    Failures are ignored: another command has removed the container, or a later one will, as an
    orphan.
    """
    try:
        with asking("remove a container"):
            client.remove_container(container, force=True)
    except EngineUnavailable:
        return


def remove_orphans(
    client: APIClient, label: str, is_owned: Callable[[Mapping[str, str]], bool]
) -> None:
    """Remove the containers with a label (`NAME` or `NAME=VALUE`) that have no owner any more.

    `is_owned` decides that by their labels. Raises `EngineUnavailable` if they cannot be listed.
    """
    with asking("list containers"):
        found = client.containers(all=True, filters={"label": label})
    for each in found:
        if not is_owned(each["Labels"]):
            remove_container(client, each["Id"])


def _innermost(error: BaseException) -> str:
    """Return the cause of an error, without the names of the libraries that passed it on."""
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
