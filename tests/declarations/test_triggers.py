"""Triggers and their notifications: fields, defaults, the form in a spec, and what is refused."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flyte_build.declarations.describe import task_spec
from flyte_build.errors import DeclarationError
from flyte_build.models import ActionPhase

pytestmark = pytest.mark.quick

flyte: Any = importlib.import_module("flyte")  # With its types, mypy would refuse the errors.
Email, NamedDelivery, NamedRule = (
    flyte.notify.Email,
    flyte.notify.NamedDelivery,
    flyte.notify.NamedRule,
)
Slack, Teams, Webhook = flyte.notify.Slack, flyte.notify.Teams, flyte.notify.Webhook
RATE = flyte.FixedRate(5)
FAILED = ActionPhase.FAILED


def _stored(*triggers: Any) -> Any:
    environment = flyte.TaskEnvironment("e")

    def work(x: int = 1, wait: timedelta = timedelta(), when: datetime | None = None) -> int:
        return x

    task = environment.task(triggers=triggers)(work)
    return task_spec(task).operational.options["triggers"]


@pytest.mark.parametrize(
    "expression",
    [
        "* * * * *",
        "*/5 0-6/2 1,15 JAN-MAR mon-FRI",
        " 0  0 * * 7 ",
        "0 0 ? 12 SUN",
        "5/15 * * * *",
        "@daily",
        "@every 5m",
    ],
)
def test_a_cron_expression(expression: str) -> None:
    assert flyte.Cron(expression).timezone_expression == f"CRON_TZ=UTC {expression}"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        *(
            (lambda text=text: flyte.Cron(text), ValueError, "not a valid cron expression")
            for text in (
                *("", "x", "* * * *", "* * * * * *", "60 * * * *", "0 24 * * *", "0 0 0 * *"),
                *("0 0 * 13 *", "0 0 * * 8", "*/0 * * * *", "1,,2 * * * *", "-1 * * * *"),
                *("1-2-3 * * * *", "0 0 MON * *", "@sometimes", "@every"),
            )
        ),
        (lambda: flyte.Cron(5), TypeError, "expression must be a string"),
        (lambda: flyte.Cron("@daily", ""), ValueError, "timezone"),
        (lambda: flyte.FixedRate(0), ValueError, "1 or more"),
        (lambda: flyte.FixedRate("5"), TypeError, "must be an int"),
        (lambda: flyte.FixedRate(5, "2024-01-01"), TypeError, "must be a datetime"),
        (lambda: flyte.OnArtifact(""), ValueError, "name must not be empty"),
        (lambda: flyte.OnArtifact("m", x=1), TypeError, "partition 'x'"),
        (lambda: flyte.TriggeredPartition(""), ValueError, "key must not be empty"),
        (lambda: flyte.Trigger(), TypeError, "name"),
        (lambda: flyte.Trigger(""), ValueError, "name must not be empty"),
        (lambda: flyte.Trigger(5), TypeError, "name must be a string"),
        (lambda: flyte.Trigger("t", "0 * * * *"), TypeError, "automation must be"),
        (lambda: flyte.Trigger("t", RATE, inputs=[1]), TypeError, "inputs must be a dict"),
        (lambda: flyte.Trigger("t", RATE, labels="a"), TypeError, "labels must be a dict"),
        (lambda: flyte.Trigger("t", RATE, max_action_concurrency=1), ValueError, "2 or more"),
        (lambda: flyte.Trigger("t", RATE, max_action_concurrency=-1), ValueError, "2 or more"),
        (lambda: flyte.Trigger("t", RATE, notifications="r"), TypeError, "notifications must be"),
        (lambda: flyte.Trigger("t", RATE, notifications=(1,)), TypeError, "notifications must be"),
        (lambda: flyte.Trigger.hourly(notifications=()), TypeError, "no option 'notifications'"),
        *(
            (
                lambda automation=automation, value=value: flyte.Trigger(
                    "t", automation, inputs={"x": value}
                ),
                ValueError,
                "cannot bind the input 'x'",
            )
            for automation, value in (
                (RATE, flyte.TriggeredArtifact),
                (RATE, flyte.TriggeredPartition("day")),
                (None, flyte.TriggerTime),
                (None, flyte.TriggeredArtifact),
                (flyte.OnArtifact("m"), flyte.TriggerTime),
            )
        ),
        (
            lambda: flyte.Trigger(
                "t",
                flyte.OnArtifact("m"),
                inputs={"x": flyte.TriggeredArtifact, "y": flyte.TriggeredArtifact},
            ),
            ValueError,
            "more than one input",
        ),
        (lambda: Email(on_phase=FAILED, recipients=()), ValueError, "recipients"),
        (lambda: Email(on_phase=(), recipients=("a@b",)), ValueError, "at least one phase"),
        (lambda: Email(on_phase=5, recipients=("a@b",)), TypeError, "on_phase must be"),
        (lambda: Email(on_phase="x", recipients=("a@b",)), ValueError, "cannot be sent on 'x'"),
        (lambda: Email(on_phase=FAILED), TypeError, "recipients"),
        *(
            (
                lambda phase=phase: NamedDelivery(on_phase=phase, name="d"),
                ValueError,
                "cannot be sent on",
            )
            for phase in ActionPhase
            if not phase.is_terminal or phase is ActionPhase.RECOVERED
        ),
        (lambda: Slack(on_phase=FAILED, webhook_url=""), ValueError, "webhook_url"),
        (lambda: Teams(on_phase=FAILED, webhook_url=""), ValueError, "webhook_url"),
        (lambda: Webhook(on_phase=FAILED, url=""), ValueError, "url"),
        (lambda: Webhook(on_phase=FAILED, url="u", method="x"), ValueError, "HTTP method"),
        (lambda: NamedDelivery(on_phase=FAILED, name=""), ValueError, "name"),
        (lambda: NamedRule(""), ValueError, "name"),
        (
            lambda: _stored(flyte.Trigger("t", RATE, inputs={"nope": 1})),
            DeclarationError,
            "'nope' does not exist",
        ),
        (lambda: _stored(flyte.Trigger.hourly("nope")), ValueError, "'nope' does not exist"),
        (
            lambda: _stored(flyte.Trigger("t", RATE, inputs={"x": "one"})),
            ValueError,
            "'x' cannot be 'one'",
        ),
    ],
)
def test_an_invalid_trigger_is_refused(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "expression"),
    [
        (flyte.Trigger.minutely, "* * * * *"),
        (flyte.Trigger.hourly, "0 * * * *"),
        (flyte.Trigger.daily, "0 0 * * *"),
        (flyte.Trigger.weekly, "0 0 * * 0"),
        (flyte.Trigger.monthly, "0 0 1 * *"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_schedules_have_names(make: Callable[..., Any], expression: str) -> None:
    trigger = make()
    assert (trigger.name, trigger.automation) == (make.__name__, flyte.Cron(expression))
    assert trigger.auto_activate and trigger.description and not trigger.inputs
    own = make("when", name="mine", inputs={"x": 2}, auto_activate=False, queue="q")
    assert (own.name, own.auto_activate, own.queue) == ("mine", False, "q")
    assert own.inputs == {"when": flyte.TriggerTime, "x": 2}
    assert make("when", inputs={"when": 1}).inputs == {"when": 1}


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (flyte.Trigger("t"), {}),
        (
            flyte.Trigger("t", flyte.Cron("@daily", "Europe/Berlin"), "d"),
            {
                "automation": {"kind": "cron", "expression": "@daily", "timezone": "Europe/Berlin"},
                "description": "d",
            },
        ),
        (
            flyte.Trigger(
                "t",
                flyte.FixedRate(5, datetime(2024, 1, 1, tzinfo=UTC)),
                inputs={"x": 3, "wait": timedelta(minutes=1), "when": flyte.TriggerTime},
            ),
            {
                "automation": {
                    "kind": "fixed_rate",
                    "interval_minutes": 5,
                    "start_time": "2024-01-01T00:00:00+00:00",
                },
                "inputs": {"x": 3, "wait": "PT60S"},
                "bound": {"when": {"source": "time"}},
            },
        ),
        (
            flyte.Trigger(
                "t",
                flyte.OnArtifact("m", "v", {"a": "b"}, region="eu"),
                inputs={"x": flyte.TriggeredArtifact, "when": flyte.TriggeredPartition("day")},
                auto_activate=False,
                env_vars={"A": "b"},
                interruptible=False,
                overwrite_cache=True,
                labels={"l": "m"},
                max_action_concurrency=2,
                custom_context={"c": "d"},
            ),
            {
                "automation": {
                    "kind": "artifact",
                    "name": "m",
                    "version": "v",
                    "partitions": {"a": "b", "region": "eu"},
                },
                "bound": {
                    "x": {"source": "artifact"},
                    "when": {"source": "partition", "key": "day"},
                },
                "auto_activate": False,
                "env_vars": {"A": "b"},
                "interruptible": False,
                "overwrite_cache": True,
                "labels": {"l": "m"},
                "max_action_concurrency": 2,
                "custom_context": {"c": "d"},
            },
        ),
        (
            flyte.Trigger("t", notifications=NamedRule("r")),
            {"notifications": {"kind": "NamedRule", "name": "r"}},
        ),
        (
            flyte.Trigger(
                "t",
                notifications=(
                    NamedDelivery(on_phase=(FAILED, ActionPhase.ABORTED), name="d"),
                    Webhook(on_phase=FAILED, url="u", body={"a": 1}),
                    Slack(on_phase=FAILED, webhook_url="u", message="m"),
                ),
            ),
            {
                "notifications": [
                    {"kind": "NamedDelivery", "on_phase": ["failed", "aborted"], "name": "d"},
                    {
                        "kind": "Webhook",
                        "on_phase": ["failed"],
                        "url": "u",
                        "method": "POST",
                        "body": {"a": 1},
                    },
                    {
                        "kind": "Slack",
                        "on_phase": ["failed"],
                        "webhook_url": "u",
                        "message": "m",
                    },
                ]
            },
        ),
    ],
    ids=str,
)
def test_a_trigger_in_a_spec(trigger: Any, expected: dict[str, Any]) -> None:
    """The inputs are wire values, and those known only when it fires are apart."""
    assert _stored(trigger) == [{"name": "t", "auto_activate": True, **expected}]


def test_triggers_are_one_or_several() -> None:
    environment = flyte.TaskEnvironment("e")
    hourly, daily = flyte.Trigger.hourly(), flyte.Trigger.daily()

    def work() -> None: ...

    for given, names in ((hourly, ["hourly"]), ([hourly, daily], ["hourly", "daily"])):
        options = task_spec(environment.task(triggers=given)(work)).operational.options
        assert [each["name"] for each in options["triggers"]] == names
    assert "triggers" not in task_spec(environment.task(triggers=())(work)).operational.options


@pytest.mark.parametrize(
    ("notification", "field"),
    [
        (Email(on_phase=FAILED, recipients=("a@b",)), "body"),
        (Slack(on_phase=FAILED, webhook_url="u"), "message"),
        (Teams(on_phase=FAILED, webhook_url="u"), "message"),
        (Webhook(on_phase=FAILED, url="u"), "body"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_notification_has_a_default_text(notification: Any, field: str) -> None:
    assert "{{.Error}}" in str(getattr(notification, field))
    assert notification.on_phase == (FAILED,)


def test_another_form_replaces_the_default_text() -> None:
    assert Slack(on_phase=FAILED, webhook_url="u", blocks=[{}]).message is None
    assert Teams(on_phase=FAILED, webhook_url="u", card={}).message is None
    assert Email(on_phase=["failed"], recipients="a@b").recipients == ("a@b",)


def test_phases_are_strings() -> None:
    assert ActionPhase("timed_out") is ActionPhase.TIMED_OUT and FAILED == "failed"
    ended = {phase.value for phase in ActionPhase if phase.is_terminal}
    assert ended == {"succeeded", "failed", "aborted", "timed_out", "recovered"}
