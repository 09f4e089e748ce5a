"""Registries and a forward proxy that the tests of one file share."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tests.support.clients import (
    LOGIN,
    no_settings,  # noqa: F401
)
from tests.support.registries import ForwardProxy, Server, forward_proxy, serve


class Servers:
    """Servers of every kind, each started at its first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: dict[str, Server | ForwardProxy] = {}
        self.stack = ExitStack()

    def registry(self, **options: bool) -> Server:
        name = "-".join(sorted(options)) or "plain"
        if name not in self._started:
            login = LOGIN if options.get("token") or options.pop("password", False) else None
            self._started[name] = self.stack.enter_context(
                serve(self._folder / name, login=login, **options)
            )
        server = self._started[name]
        assert isinstance(server, Server)
        return server

    def proxy(self) -> ForwardProxy:
        if "proxy" not in self._started:
            self._started["proxy"] = self.stack.enter_context(
                forward_proxy(self._folder / "proxy", login=("bob", "proxyword"))
            )
        proxy = self._started["proxy"]
        assert isinstance(proxy, ForwardProxy)
        return proxy
