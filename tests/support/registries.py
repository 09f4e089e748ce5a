"""Real registries, and a real forward proxy, on loopback ports: each ends with its `with` block."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.needs import need
from tests.support.tokens import ISSUER, SERVICE, Signer, TokenServer

_CERTIFICATES = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = IP:127.0.0.1, DNS:localhost
"""


@dataclass(frozen=True)
class Server:
    """A running registry.

    `folder` is its storage, `ca` the certificate to trust if it has TLS, and `tokens` its token
    server.
    """

    host: str
    folder: Path
    ca: Path | None
    tokens: TokenServer | None

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.host}"

    def repository(self, name: str) -> str:
        return f"{self.host}/{name}"

    def blob(self, digest: str) -> Path:
        """Return the file of a blob or manifest, to change or delete; the registry caches none.

        All repositories of the registry share the file, so this is for a registry that no other
        test uses.
        """
        algorithm, hexadecimal = digest.split(":")
        return (
            self.folder
            / "docker/registry/v2/blobs"
            / algorithm
            / hexadecimal[:2]
            / hexadecimal
            / "data"
        )


@contextmanager
def serve(
    folder: Path,
    *,
    login: tuple[str, str] | None = None,
    tls: bool = False,
    delete: bool = True,
    token: bool = False,
    read_only: bool = False,
) -> Iterator[Server]:
    """Serve a registry that keeps everything in `folder`, where a later one finds it.

    With a login it requires that name and password: itself, or its token server with `token`.
    """
    need("registry")
    folder.mkdir(parents=True, exist_ok=True)
    storage = folder / "storage"
    ca = _certify(folder) if tls else None
    with ExitStack() as stack:
        tokens = stack.enter_context(TokenServer(Signer.make(folder), login)) if token else None

        def command(port: int) -> list[str]:
            config: dict[str, object] = {
                "version": 0.1,
                "log": {"level": "error", "accesslog": {"disabled": True}},
                "storage": {
                    "filesystem": {"rootdirectory": str(storage)},
                    "delete": {"enabled": delete},
                    "maintenance": {
                        "readonly": {"enabled": read_only},
                        "uploadpurging": {"enabled": False},
                    },
                },
                "http": {"addr": f"127.0.0.1:{port}", "secret": "of this test"},
            }
            if ca:
                config["http"] |= {
                    "tls": {
                        "certificate": str(folder / "server.pem"),
                        "key": str(folder / "server.key"),
                    }
                }  # type: ignore[operator]  # A dict.
            if tokens:
                where = {
                    "realm": f"{tokens.url}/token",
                    "service": SERVICE,
                    "issuer": ISSUER,
                    "rootcertbundle": str(folder / "token.pem"),
                }
                config["auth"] = {"token": where}
            elif login:
                config["auth"] = {
                    "htpasswd": {"realm": "registry", "path": str(_passwords(folder, *login))}
                }
            (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML.
            return ["docker-registry", "serve", str(folder / "config.yml")]

        def answers(port: int) -> bool:
            client: http.client.HTTPConnection = (
                http.client.HTTPSConnection(
                    "127.0.0.1", port, context=ssl.create_default_context(cafile=ca)
                )
                if ca
                else http.client.HTTPConnection("127.0.0.1", port)
            )
            with closing(client):
                client.request("GET", "/v2/")
                return client.getresponse().status in (200, 401)

        port = stack.enter_context(_started(command, answers, folder / "log"))
        yield Server(f"127.0.0.1:{port}", storage, ca, tokens)


@dataclass(frozen=True)
class ForwardProxy:
    """A running forward proxy: `url` is for `http_proxy` and `https_proxy`."""

    url: str
    log: Path

    def requests(self) -> list[str]:
        """Return the first lines of all requests.

        They are like `GET http://... HTTP/1.1` or `CONNECT host:port HTTP/1.1`.
        """
        return [
            line.partition("): ")[2]
            for line in self.log.read_text().splitlines()
            if " Request (" in line
        ]


@contextmanager
def forward_proxy(folder: Path, *, login: tuple[str, str] | None = None) -> Iterator[ForwardProxy]:
    """Run a forward proxy; a login is part of its URL."""
    need("proxy")
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "proxy.log"

    def command(port: int) -> list[str]:
        lines = [
            f"Port {port}",
            "Listen 127.0.0.1",
            "Allow 127.0.0.1",
            f'LogFile "{log}"',
            "LogLevel Connect",
            "Timeout 60",
        ]
        if login:
            lines.append("BasicAuth {} {}".format(*login))
        (folder / "proxy.conf").write_text("\n".join(lines) + "\n")
        return ["tinyproxy", "-d", "-c", str(folder / "proxy.conf")]

    def answers(port: int) -> bool:
        socket.create_connection(("127.0.0.1", port)).close()
        return True

    with _started(command, answers, folder / "log") as port:
        yield ForwardProxy(
            f"http://{'{}:{}@'.format(*login) if login else ''}127.0.0.1:{port}", log
        )


@contextmanager
def _started(
    command: Callable[[int], list[str]], answers: Callable[[int], bool], log: Path
) -> Iterator[int]:
    """Start a server on a free port, yield the port when it answers, and end it."""
    for _ in range(5):  # Another process may have taken the port meanwhile.
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with (
            log.open("wb") as output,
            subprocess.Popen(command(port), stdout=output, stderr=output) as process,
        ):
            try:
                if _waited(process, lambda port=port: answers(port)):  # type: ignore[misc]  # mypy infers no lambda with a default.
                    yield port
                    return
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
    raise AssertionError(f"{command(0)[0]} does not start: {log.read_text()}")


def _waited(process: subprocess.Popen[bytes], answers: Callable[[], bool]) -> bool:
    """Whether a server has begun to answer within half a minute, and not ended."""
    for _ in range(1500):
        try:
            if answers() and process.poll() is None:
                return True
        except (OSError, http.client.HTTPException):
            pass  # Not yet.
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    return False


def _certify(folder: Path) -> Path:
    """Make a private certificate authority and a certificate for this machine.

    Returns the authority's certificate.
    """
    if not (folder / "server.pem").exists():
        (folder / "openssl.cnf").write_text(_CERTIFICATES)
        new = (
            "openssl req -x509 -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
            " -nodes -days 2"
        )
        for options in (
            "-extensions ca -subj /CN=ca -keyout ca.key -out ca.pem",
            (
                "-extensions server -subj /CN=server -keyout server.key -out server.pem -CA ca.pem"
                " -CAkey ca.key"
            ),
        ):
            subprocess.run(
                [*new.split(), *options.split()], cwd=folder, check=True, capture_output=True
            )
    return folder / "ca.pem"


def _passwords(folder: Path, name: str, password: str) -> Path:
    made = subprocess.run(
        ["htpasswd", "-niB", name], input=password.encode(), check=True, capture_output=True
    )
    (folder / "passwords").write_bytes(made.stdout)
    return folder / "passwords"
