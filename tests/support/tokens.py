"""A token server for a registry.

It issues the signed tokens of distribution's "Token Authentication Specification".
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.listening import Answer, Exchange, Listener

SERVICE = "registry.test"
ISSUER = "tokens.test"
_LEEWAY = 60  # Seconds for which the registry still takes a token that has expired.


@dataclass(frozen=True)
class Signer:
    """A private key and its certificate, which the registry trusts."""

    key: Path
    certificate: Path

    @classmethod
    def make(cls, folder: Path) -> Signer:
        signer = cls(folder / "token.key", folder / "token.pem")
        if not signer.certificate.exists():
            command = (
                "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens.test -keyout"
                " token.key -out token.pem"
            )
            subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
        return signer

    def sign(self, claims: dict[str, object]) -> str:
        """Return a JSON web token with these claims."""
        lines = self.certificate.read_text().splitlines()
        parts = ({"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines[1:-1])]}, claims)
        text = b".".join(_encode(json.dumps(part).encode()) for part in parts)
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.key],
            input=text,
            check=True,
            capture_output=True,
        )
        return (text + b"." + _encode(signed.stdout)).decode()


class TokenServer(Listener):
    """A server that issues tokens to users with the login, or to all if there is none.

    A test may change its attributes:

    lifetime    seconds for which the registry accepts a token, to the second; 0 or less: never
    expires_in  seconds that the client is told
    allowed     actions by repository: of "pull", "push" and "delete"; all if it is not listed
    """

    def __init__(self, signer: Signer, login: tuple[str, str] | None) -> None:
        super().__init__()
        self.lifetime = 300
        self.expires_in = 300
        self.allowed: dict[str, set[str]] = {}
        self._signer = signer
        self._basic = (
            "Basic " + base64.b64encode(":".join(login).encode()).decode() if login else None
        )

    def respond(self, exchange: Exchange) -> Answer:
        exchange.drain()
        if self._basic and exchange.headers.get("Authorization") != self._basic:
            return Answer.of(401, [("WWW-Authenticate", 'Basic realm="tokens"')], b"{}")
        asked = parse_qs(urlsplit(exchange.path).query)
        scopes = [scope for value in asked.get("scope", []) for scope in value.split()]
        token = self.token(scopes)
        body = json.dumps(
            {"token": token, "access_token": token, "expires_in": self.expires_in}
        ).encode()
        return Answer.of(200, [("Content-Type", "application/json")], body)

    def token(self, scopes: list[str]) -> str:
        """Return a token for the allowed part of these scopes ("repository:NAME:pull,push")."""
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            given = [
                action
                for action in actions.split(",")
                if action in self.allowed.get(name, {"pull", "push", "delete", "*"})
            ]
            access.append({"type": kind, "name": name, "actions": given})
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": "",
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 2 * _LEEWAY,
            "exp": now + self.lifetime - _LEEWAY,
        }
        return self._signer.sign({**claims, "jti": os.urandom(8).hex(), "access": access})


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
