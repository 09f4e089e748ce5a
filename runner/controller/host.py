"""The Unix socket on which a controller serves the workers of its run.

It listens as soon as the first worker has its order. The first connection loads the HTTP server, so
a task that calls none pays nothing for it.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from flyte_build.cas.folder import make_below
from flyte_build.runner.action import Endpoint

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from uvicorn import Server


class WorkerHost:
    """Listener in the directory of a run."""

    def __init__(self, folder: str) -> None:
        make_below(f"{folder}/api")
        self.endpoint = Endpoint(f"{folder}/api/socket", os.urandom(32).hex())
        self._descriptor: int | None = None
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def listen(self) -> None:
        """Begin to listen. Raises `OSError` where the file system has no sockets."""
        from flyte_build.runner.unix_socket import listen

        self._descriptor = listen(self.endpoint.socket)

    @property
    def is_waiting(self) -> bool:
        """Whether it listens, and no worker has connected yet."""
        return self._descriptor is not None and self._server is None

    def fileno(self) -> int:
        """Return the descriptor that is readable when a worker connects."""
        assert self._descriptor is not None
        return self._descriptor

    def serve(self, application: Starlette) -> None:
        """Answer requests, in a thread."""
        from socket import socket

        from uvicorn import Config, Server

        config = Config(
            application,
            lifespan="off",
            log_config=None,
            log_level="critical",  # An error is the answer; a worker that was killed is none.
            access_log=False,
            timeout_graceful_shutdown=1,  # A call whose place is still prepared gets no answer.
            ws="none",
            http="h11",
        )
        self._server = Server(config)
        listener = socket(fileno=os.dup(self.fileno()))  # The server closes it.
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="flyte-worker-api", daemon=True
        )
        self._thread.start()

    def remove(self) -> None:
        """Remove the sockets; what is connected stays so."""
        folder = os.path.dirname(self.endpoint.socket)
        with suppress(OSError):  # The run's directory is gone.
            for entry in os.scandir(folder):
                os.unlink(entry)
            os.rmdir(folder)

    def close(self) -> None:
        """Stop answering, and remove the socket."""
        self.remove()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        if self._descriptor is not None:
            os.close(self._descriptor)
