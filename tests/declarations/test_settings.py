"""Settings of environments and tasks: their defaults, their normal forms, and what is refused."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flyte_build.declarations.describe import overridden, task_spec
from flyte_build.declarations.link import Link
from flyte_build.errors import DeclarationError, DeclarationTypeError

pytestmark = pytest.mark.quick

flyte: Any = importlib.import_module("flyte")  # With its types, mypy would refuse the errors.
SECOND = timedelta(seconds=1)


def _task(environment: Any, **options: Any) -> Any:
    def work(x: int) -> int:
        return x

    return environment.task(**options)(work)


def _async_task(environment: Any, **options: Any) -> Any:
    async def work(x: int) -> int:
        return x

    return environment.task(**options)(work)


def _env(**settings: Any) -> Any:
    return flyte.TaskEnvironment("e", **settings)


def _options(**options: Any) -> dict[str, Any]:
    return dict(task_spec(_task(_env(), **options)).operational.options)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: flyte.Resources(cpu=-1), ValueError, "cpu must be"),
        (lambda: flyte.Resources(cpu="x"), ValueError, "cpu must be"),
        (lambda: flyte.Resources(cpu=10**400), ValueError, "cpu must be"),
        (lambda: flyte.Resources(memory="9" * 400), ValueError, "memory must be a quantity"),
        (lambda: flyte.Resources(memory="1Gi\n"), ValueError, "memory must be a quantity"),
        (lambda: flyte.Resources(cpu=(1, 2, 3)), ValueError, "cpu must be"),
        (lambda: flyte.Resources(cpu=[1, 2]), ValueError, "cpu must be"),
        (lambda: flyte.Resources(memory=5), ValueError, "memory must be a quantity"),
        (lambda: flyte.Resources(memory=("1Gi",)), ValueError, "memory must be"),
        (lambda: flyte.Resources(disk=5), ValueError, "disk must be"),
        (lambda: flyte.Resources(gpu=-1), ValueError, "gpu must be"),
        (lambda: flyte.Resources(gpu=1.5), ValueError, "gpu must be"),
        (lambda: flyte.Resources(gpu="A100"), ValueError, "TYPE:NUMBER"),
        (lambda: flyte.Resources(gpu="X9:1"), ValueError, "TYPE:NUMBER"),
        (lambda: flyte.Resources(gpu="A100:0"), ValueError, "quantity"),
        (lambda: flyte.GPU("X", 1), ValueError, "Unknown GPU type"),
        (lambda: flyte.GPU("A100", 0), ValueError, "quantity must be 1 or more"),
        (lambda: flyte.GPU("A100", 1, "1g.18gb"), ValueError, "no partition"),
        (lambda: flyte.TPU("V5P", "2x2"), ValueError, "no partition"),
        (lambda: flyte.TPU("X"), ValueError, "Unknown TPU type"),
        (lambda: flyte.AMD_GPU("X"), ValueError, "Unknown AMD_GPU type"),
        (lambda: flyte.Neuron("X"), ValueError, "Unknown NEURON type"),
        (lambda: flyte.HABANA_GAUDI("X"), ValueError, "Unknown HABANA_GAUDI type"),
        (lambda: flyte.Backoff(SECOND, 2), ValueError, "cap is missing"),
        (lambda: flyte.Backoff(SECOND, 0.5), ValueError, "factor must be"),
        (lambda: flyte.Backoff(SECOND, "2", SECOND), ValueError, "factor must be"),
        (lambda: flyte.Backoff(SECOND, float("nan"), SECOND), ValueError, "factor must be"),
        (lambda: flyte.Backoff(-SECOND), ValueError, "base must be"),
        (lambda: flyte.Backoff("1"), TypeError, "base must be"),
        (lambda: flyte.Backoff(SECOND).compute_delay(-1), ValueError, "0 or more"),
        (lambda: flyte.RetryStrategy(-1), ValueError, "count must be"),
        (lambda: flyte.RetryStrategy("2"), ValueError, "count must be"),
        (lambda: flyte.Cache("x"), ValueError, "Unknown cache behavior"),
        (lambda: flyte.Cache(True), ValueError, "Unknown cache behavior"),
        (lambda: flyte.Cache("auto", max_age=-1), ValueError, "max_age"),
        (lambda: flyte.Cache("auto", max_age="1d"), TypeError, "max_age"),
        (lambda: flyte.ReusePolicy(-1), ValueError, "replicas"),
        (lambda: flyte.ReusePolicy((3, 1)), ValueError, "replicas"),
        (lambda: flyte.ReusePolicy((1, 2, 3)), ValueError, "replicas"),
        (lambda: flyte.ReusePolicy([1, 2]), ValueError, "replicas"),
        (lambda: flyte.ReusePolicy("2"), ValueError, "replicas"),
        (lambda: flyte.ReusePolicy((1.5, 2)), ValueError, "replicas"),
        (lambda: flyte.ReusePolicy(concurrency=0), ValueError, "concurrency"),
        (lambda: flyte.ReusePolicy(concurrency="2"), ValueError, "concurrency"),
        (lambda: flyte.ReusePolicy(idle_ttl=29), ValueError, "idle_ttl must be at least 30"),
        (lambda: flyte.ReusePolicy(idle_ttl=None), ValueError, "idle_ttl"),
        (lambda: flyte.ReusePolicy(idle_ttl=30.5), ValueError, "idle_ttl"),
        (lambda: flyte.ReusePolicy(scaledown_ttl=SECOND), ValueError, "scaledown_ttl"),
        (lambda: flyte.ReusePolicy(scope="x"), ValueError, "scope"),
        (lambda: flyte.Secret(5), TypeError, "key must be a string"),
        (lambda: flyte.Secret(""), ValueError, "environment variable"),
        (lambda: flyte.Secret("a b"), ValueError, "environment variable"),
        (lambda: flyte.Secret("a", as_env_var="x"), ValueError, "'x' is not a valid name"),
        (lambda: flyte.Secret("a", as_env_var="1X"), ValueError, "'1X' is not a valid name"),
        (lambda: flyte.PodTemplate.from_spec(_pod("a", "b")), ValueError, "'primary'"),
        (
            lambda: flyte.PodTemplate.from_spec(_pod("a"), primary_container_name="b"),
            ValueError,
            "'b'",
        ),
    ],
)
def test_an_invalid_setting_is_refused(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    """A wrong value is a `ValueError`, a wrong type mostly a `TypeError`, as in Flyte 2."""
    with pytest.raises(error, match=message) as caught:
        make()
    assert isinstance(caught.value, DeclarationError)


def _pod(*names: str) -> Any:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    class Pod:
        containers = tuple(Named(name) for name in names)

    return Pod()


@pytest.mark.parametrize(
    "settings",
    [
        {"image": 5},
        {"resources": "x"},
        {"resources": {"cpu": 1}},
        {"env_vars": ["A"]},
        {"secrets": 5},
        {"secrets": [5]},
        {"cache": 5},
        {"reusable": 5},
        {"reusable": "off"},
        {"reusable": {"replicas": 2}},
        {"depends_on": 5},
        {"depends_on": [5]},
        {"include": "data"},
        {"include": (5,)},
        {"include": (Path("data"),)},
        {"description": 5},
        {"service_account": 5},
        {"pod_template": 5},
        {"name": 5},
        {"name": None},
    ],
    ids=str,
)
def test_an_environment_refuses_a_setting_of_a_wrong_type(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(settings))} must") as caught:
        flyte.TaskEnvironment(**{"name": "e", **settings})
    assert isinstance(caught.value, DeclarationError)


def test_a_dependency_is_an_environment() -> None:
    with pytest.raises(TypeError, match="environments"):
        _env().add_dependency(5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: _env(cache="x"), ValueError, "Unknown cache behavior"),
        (lambda: _task(_env(), cache="x"), ValueError, "Unknown cache behavior"),
        (lambda: _task(_env(), cache=5), TypeError, "cache must be"),
        (lambda: _task(_env(), retries="x"), ValueError, "retries must be"),
        (lambda: _task(_env(), retries=1.5), ValueError, "retries must be"),
        (lambda: _task(_env(), triggers=5), TypeError, "triggers must be"),
        (lambda: _task(_env(), triggers=[5]), TypeError, "triggers must be"),
        (lambda: _task(_env(), links=5), TypeError, "links must be"),
        (lambda: _task(_env(), reusable="x"), TypeError, "reusable must be"),
        (lambda: _task(_env(), nope=1), TypeError, "no option 'nope'"),
        (lambda: _task(_env()).override(nope=1), TypeError, "no option 'nope'"),
        (lambda: _env().clone_with("f", nope=1), TypeError, "no setting 'nope'"),
        (
            lambda: _env(reusable=flyte.ReusePolicy(), plugin_config={"a": 1}),
            ValueError,
            "reusable and plugin_config",
        ),
        (
            lambda: _task(_env(reusable=flyte.ReusePolicy()), pod_template="p"),
            ValueError,
            "pod_template",
        ),
        (
            lambda: _task(_env(reusable=flyte.ReusePolicy(concurrency=2))),
            ValueError,
            "concurrency of 2",
        ),
        (
            lambda: _task(_env()).override(reusable=flyte.ReusePolicy(concurrency=2)),
            ValueError,
            "concurrency of 2",
        ),
    ],
)
def test_an_invalid_declaration_is_refused(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "options",
    [
        {"resources": flyte.Resources(cpu=1)},
        {"env_vars": {"A": "b"}},
        {"secrets": "token"},
        {"service_account": "robot"},
    ],
    ids=str,
)
def test_kept_workers_are_not_changed_for_one_call(options: dict[str, Any]) -> None:
    """Options of a worker are replaced only if the call has a worker of its own."""
    task = _task(_env(reusable=flyte.ReusePolicy()))
    spec = task_spec(task)
    for override in (task.override, lambda **given: overridden(spec, given)):
        with pytest.raises(ValueError, match=f"override {next(iter(options))}"):
            override(**options)
        override(**dict.fromkeys(options))
    own = task.override(**options, reusable="off")
    assert own.reusable is None and "reusable" not in task_spec(own).operational.options
    changed = overridden(spec, {**options, "reusable": "off"})
    assert "reusable" not in changed.operational.options
    assert task.override(retries=2, reusable=flyte.ReusePolicy(3)).reusable == flyte.ReusePolicy(3)


def test_concurrency_is_for_coroutines() -> None:
    policy = flyte.ReusePolicy((1, 3), 60, 2, 45, "run")
    task = _async_task(_env(reusable=policy))
    assert task_spec(task).operational.options["reusable"] == {
        "replicas": [1, 3],
        "idle_ttl": 60.0,
        "concurrency": 2,
        "scaledown_ttl": 45.0,
        "scope": "run",
    }


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (flyte.ReusePolicy(), (2, 2, 30, 1, 30, "global")),
        (flyte.ReusePolicy(0), (0, 0, 30, 1, 30, "global")),
        (flyte.ReusePolicy(3, timedelta(minutes=2)), (3, 3, 120, 1, 30, "global")),
        (flyte.ReusePolicy((1, 4), scope="run"), (1, 4, 30, 1, 30, "run")),
    ],
)
def test_a_reuse_policy_has_normal_forms(policy: Any, expected: Any) -> None:
    assert isinstance(policy.idle_ttl, timedelta) and isinstance(policy.scaledown_ttl, timedelta)
    assert policy.replicas == expected[:2]
    assert expected == (
        policy.min_replicas,
        policy.max_replicas,
        policy.idle_ttl.total_seconds(),
        policy.concurrency,
        policy.scaledown_ttl.total_seconds(),
        policy.scope,
    )


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (flyte.Backoff(SECOND), [1, 1, 1]),
        (flyte.Backoff(5), [5, 5, 5]),
        (flyte.Backoff(SECOND, 2, 5 * SECOND), [1, 2, 4, 5, 5]),
        (flyte.Backoff(5, 2, 1), [1, 1]),
        (flyte.Backoff(), [0, 0]),
    ],
)
def test_the_wait_before_a_retry(backoff: Any, delays: list[float]) -> None:
    waits = [backoff.compute_delay(n) for n in range(len(delays))]
    assert [wait.total_seconds() for wait in waits] == delays
    strategy = flyte.RetryStrategy(len(delays), backoff)
    assert task_spec(_task(_env(), retries=strategy)).operational.backoff == delays


def test_a_wait_never_exceeds_its_cap() -> None:
    assert flyte.Backoff(SECOND, 2, 9 * SECOND).compute_delay(100_000) == 9 * SECOND


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        *((each, "auto") for each in ("auto", "enable", "enabled", "on", "true", "yes", True)),
        *((each, None) for each in ("disable", "disabled", "off", "false", "no", "none", False)),
        ("override", "override"),
        (flyte.Cache("on"), {"behavior": "auto", "serialize": False}),
        (flyte.Cache("auto", max_age=5), {"behavior": "auto", "serialize": False, "max_age": 5.0}),
    ],
    ids=str,
)
def test_cache_behaviors_have_aliases(given: Any, stored: Any) -> None:
    """An environment, a task, an override and a deployed task store the same."""
    spec = task_spec(_task(_env()))
    for options in (
        task_spec(_task(_env(cache=given))).operational.options,
        _options(cache=given),
        task_spec(_task(_env()).override(cache=given)).operational.options,
        overridden(spec, {"cache": given}).operational.options,
    ):
        assert options.get("cache") == stored
    if isinstance(given, str):
        assert flyte.Cache(given).is_enabled() is bool(stored)


def test_ignored_inputs_are_names() -> None:
    assert flyte.Cache("auto", ignored_inputs="a").get_ignored_inputs() == ("a",)
    assert flyte.Cache("auto", ignored_inputs=["a", "b"]).get_ignored_inputs() == ("a", "b")


def test_a_cache_policy_is_an_object_with_a_version() -> None:
    class Mine:
        def get_version(self, salt: str, params: Any) -> str:
            return salt

    assert isinstance(Mine(), flyte.CachePolicy)
    assert flyte.Cache("auto", policies=[Mine()]).behavior == "auto"


@pytest.mark.parametrize(
    ("gpu", "device", "stored"),
    [
        (2, flyte.Device(2, "GPU"), 2),
        ("A100:4", flyte.Device(4, "GPU", "A100"), "A100:4"),
        ("T4 shared:1", flyte.Device(1, "GPU", "T4 shared"), "T4 shared:1"),
        ("A100_80G:2", flyte.GPU("A100_80G", 2), "A100_80G:2"),
        ("Trn1:4", flyte.Device(4, "NEURON", "Trn1"), "Trn1:4"),
        ("Inf2:1", flyte.Neuron("Inf2"), "Inf2:1"),
        ("MI300X:1", flyte.AMD_GPU("MI300X"), "MI300X:1"),
        ("Gaudi1:1", flyte.HABANA_GAUDI("Gaudi1"), "Gaudi1:1"),
        ("AppleSilicon", flyte.APPLE_SILICON(), "AppleSilicon:1"),
        (flyte.GPU("H100", 2, "1g.20gb"), flyte.GPU("H100", 2, "1g.20gb"), "H100/1g.20gb:2"),
        (flyte.TPU("V5E", "2x2"), flyte.Device(1, "TPU", "V5E", "2x2"), "V5E/2x2:1"),
    ],
    ids=str,
)
def test_accelerators(gpu: Any, device: Any, stored: Any) -> None:
    """The spec ends with the number, which is all that a container engine needs."""
    resources = flyte.Resources(gpu=gpu)
    assert resources.get_device() == device
    assert _options(resources=resources) == {"resources": {"gpu": stored}}


def test_resources_are_positional() -> None:
    assert flyte.Resources(1, ("1Gi", "2Gi"), "A100:1", "5Gi", "auto") == flyte.Resources(
        cpu=1, memory=("1Gi", "2Gi"), gpu="A100:1", disk="5Gi", shm="auto"
    )


def test_a_pod_template_is_stored() -> None:
    template = flyte.PodTemplate.from_spec(_pod("main"), labels={"a": "b"})
    assert template.primary_container_name == "main"
    plain = flyte.PodTemplate(labels={"a": "b"})
    assert _options(pod_template=plain) == {
        "pod_template": {"primary_container_name": "primary", "labels": {"a": "b"}}
    }
    assert _options(pod_template="name") == {"pod_template": "name"}


def test_documentation_and_links_are_stored() -> None:
    class Logs(Link):
        name = "logs"

        def get_link(self, *args: Any, **kwargs: Any) -> str:
            return "https://example.com"

    options = _options(docs=flyte.Documentation("More."), links=(Logs(),))
    assert options["docs"] == {"description": "More."} and len(options["links"]) == 1


def test_a_base_environment_is_a_dependency() -> None:
    """An `Environment` has no tasks; `TaskEnvironment` is one."""
    base = flyte.Environment("base", image="python:3.12")
    environment = _env(depends_on=[base])
    assert list(environment.reachable()) == [environment, base] and base.tasks == {}
    assert isinstance(environment, flyte.Environment)
    assert isinstance(environment.clone_with("f"), flyte.TaskEnvironment)
    with pytest.raises(DeclarationTypeError):
        flyte.Environment("base", resources=5)
