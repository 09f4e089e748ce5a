"""Notifications of a trigger's runs: `Email`, `Slack`, `Teams`, `Webhook`, or named ones.

Texts may contain `{{.Run.Name}}`, `{{.Run.Project}}`, `{{.Run.Domain}}`, `{{.Phase}}` and
`{{.Error}}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from flyte_build.errors import DeclarationError, DeclarationTypeError

from .phase import ActionPhase
from .serialize import Documented

_NOTIFIED = (
    ActionPhase.SUCCEEDED,
    ActionPhase.FAILED,
    ActionPhase.ABORTED,
    ActionPhase.TIMED_OUT,
)
_METHODS = ("POST", "PUT", "PATCH", "GET", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT")
_TITLE = "Run {{.Run.Name}} {{.Phase}}"
_TEXT = "{{.Run.Project}}/{{.Run.Domain}}: run {{.Run.Name}} is {{.Phase}}.\n{{.Error}}\n"
_FIELDS = {
    "run": "{{.Run.Name}}",
    "project": "{{.Run.Project}}",
    "domain": "{{.Run.Domain}}",
    "phase": "{{.Phase}}",
    "error": "{{.Error}}",
}


@dataclass(frozen=True, kw_only=True)
class Notification(Documented):
    """A notification when a run has ended in one of the phases `on_phase`.

    Raises `DeclarationError`, as its subclasses do.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ()

    on_phase: ActionPhase | Iterable[ActionPhase]

    def __post_init__(self) -> None:
        phases = _as_tuple("on_phase", self.on_phase)
        if not phases:
            raise DeclarationError("on_phase must have at least one phase")
        for phase in phases:
            if phase not in _NOTIFIED:
                raise DeclarationError(
                    f"A notification cannot be sent on {phase!r:.100}",
                    hint=f"Use one of: {', '.join(str(each) for each in _NOTIFIED)}.",
                )
        self._set(on_phase=tuple(ActionPhase(phase) for phase in phases))
        for name in self.REQUIRED:
            if not getattr(self, name):
                raise DeclarationError(f"{type(self).__name__}: {name} must not be empty")

    def document(self) -> dict[str, Any]:
        """Return this as a JSON value: `kind` and the fields that are set."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in values.items() if value not in (None, (), "")}
        phases = [phase.value for phase in _as_tuple("on_phase", self.on_phase)]
        return {"kind": type(self).__name__, **given, "on_phase": phases}

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True)
class Email(Notification):
    """A notification by e-mail."""

    REQUIRED = ("recipients",)

    recipients: Sequence[str]
    cc: Sequence[str] = ()
    bcc: Sequence[str] = ()
    subject: str = _TITLE
    body: str = _TEXT
    html_body: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(**{name: _as_tuple(name, getattr(self, name)) for name in _ADDRESSES})


_ADDRESSES = ("recipients", "cc", "bcc")


@dataclass(frozen=True, kw_only=True)
class Slack(Notification):
    """A notification by a Slack webhook: a message, or blocks."""

    REQUIRED = ("webhook_url",)

    webhook_url: str
    message: str | None = None
    blocks: Sequence[Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks is not None:
            self._set(blocks=tuple(self.blocks))
        elif self.message is None:
            self._set(message=_TEXT)


@dataclass(frozen=True, kw_only=True)
class Teams(Notification):
    """A notification by a Microsoft Teams webhook: a title and a message, or a card."""

    REQUIRED = ("webhook_url",)

    webhook_url: str
    title: str = _TITLE
    message: str | None = None
    card: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.card is None and self.message is None:
            self._set(message=_TEXT)


@dataclass(frozen=True, kw_only=True)
class Webhook(Notification):
    """A notification by an HTTP request."""

    REQUIRED = ("url",)

    url: str
    method: str = "POST"
    headers: Mapping[str, str] | None = None
    body: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in _METHODS:
            raise DeclarationError(
                f"Unknown HTTP method: {self.method!r:.100}",
                hint=f"Use one of: {', '.join(_METHODS)}.",
            )
        if self.body is None:
            self._set(body=dict(_FIELDS))


@dataclass(frozen=True, kw_only=True)
class NamedDelivery(Notification):
    """A notification by a delivery that is configured under a name."""

    REQUIRED = ("name",)

    name: str


@dataclass(frozen=True)
class NamedRule(Documented):
    """A rule that is configured under a name: its phases and its deliveries."""

    name: str

    def __post_init__(self) -> None:
        if not self.name:
            raise DeclarationError("NamedRule: name must not be empty")

    def document(self) -> dict[str, Any]:
        """Return this as a JSON value."""
        return {"kind": type(self).__name__, "name": self.name}


def _as_tuple(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable):
        raise DeclarationTypeError(f"{name} must be a tuple, not {value!r:.100}")
    return tuple(value)
