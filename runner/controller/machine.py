"""The states of a run's actions: a machine without I/O, whose clock is the `now` of its inputs.

An action waits in a queue, runs in one attempt after another, and ends. An action with children in
flight holds no slots, so no depth of calls can block a run. The machine's user carries out its
effects in order, and reports what becomes of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from flyte_build.runner.result import Failure, Result

from .queue import Queue
from .slots import Claim, Pool, Slots

_GRACE = 5.0  # Seconds that an attempt has to end when it is asked to.
_Alarm = Literal["ready", "queued", "runtime", "deadline", "kill"]


class Policy(NamedTuple):
    """Rules for the attempts of an action: retries, limits of time in seconds, and its claim.

    `retries` count failures, `lost_retries` attempts whose worker was lost. `backoff` is the wait
    before each retry. `max_queued` limits the wait for slots, `max_runtime` one attempt, and
    `deadline` all of it.
    """

    retries: int = 0
    backoff: Sequence[float] = ()
    lost_retries: int = 3
    max_queued: float | None = None
    max_runtime: float | None = None
    deadline: float | None = None
    claim: Claim = Claim(Slots(cpu=1.0, actions=1))


class Queued(NamedTuple):
    """The action waits for slots, for the first time or again."""

    action: str


class Start(NamedTuple):
    """The attempt is to be started, in the worker of this number unless it is 0."""

    action: str
    attempt: int
    worker: int = 0


class Stop(NamedTuple):
    """The attempt is to be ended, `at_once` if it did not when it was asked to."""

    action: str
    attempt: int
    at_once: bool


class Retry(NamedTuple):
    """The attempt has failed, and another one follows after some seconds."""

    action: str
    attempt: int
    result: Result
    wait: float


class End(NamedTuple):
    """The action has ended, with this attempt (0: it never ran)."""

    action: str
    attempt: int
    result: Result


Effect = Queued | Start | Stop | Retry | End


class Ended(Exception):
    """The parent of a submitted action, or that attempt of it, has ended."""


class _Action:
    __slots__ = (
        "asked_by",
        "attempt",
        "children",
        "failures",
        "id",
        "losses",
        "parent",
        "phase",
        "policy",
        "renewal",
        "result",
        "submission",
        "turn",
        "verdict",
    )

    def __init__(self, id: str, parent: _Action | None, policy: Policy) -> None:
        self.id, self.parent, self.policy = id, parent, policy
        self.phase: Literal["queued", "running", "ended"] = "queued"
        self.attempt = self.failures = self.losses = 0
        self.asked_by = 0  # The attempt of the parent that has submitted it last.
        self.submission = 0  # Counts how often it began anew.
        self.turn = 0  # Counts its waits and attempts; alarms of earlier ones are void.
        self.verdict: Result | None = None  # Of an attempt that was asked to end.
        self.result: Result | None = None
        self.renewal: Policy | None = None  # It begins anew when its aborted attempt has ended.
        self.children: dict[str, _Action] = {}  # Those in flight.


class Machine:
    """The actions of one run, on a machine that offers `total` slots."""

    def __init__(self, total: Slots) -> None:
        self._pool, self._queue = Pool(total), Queue()
        self._actions: dict[str, _Action] = {}
        self._in_flight = 0
        self._alarms: list[tuple[float, int, _Alarm, str, int]] = []
        self._count = 0
        self._effects: list[Effect] = []

    @property
    def is_done(self) -> bool:
        """Whether all actions have ended."""
        return not self._in_flight

    @property
    def next_alarm(self) -> float | None:
        """Time at which `tick` has something to do, or None."""
        while self._alarms and self._is_void(*self._alarms[0][2:]):
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def effects(self) -> list[Effect]:
        """Return the effects since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def result(self, id: str) -> Result | None:
        """Return the result of an action; None if it has not ended. Raises `KeyError`."""
        return self._actions[id].result

    def asked_by(self, id: str) -> int:
        """Return the attempt of its parent that has submitted an action last."""
        return self._actions[id].asked_by

    def children(self, id: str) -> Iterable[str]:
        """Return the ids of an action's children in flight. Raises `KeyError`."""
        return self._actions[id].children.keys()

    def submit(
        self,
        now: float,
        id: str,
        policy: Policy,
        parent: str | None = None,
        parent_attempt: int = 1,
        known: Result | None = None,
    ) -> bool:
        """Add an action, or find it, and return whether it is new or begins anew.

        An action that is in flight or succeeded is left as it is. One that did not succeed, or is
        about to be aborted, begins anew if another attempt of its parent submits it. An action with
        a `known` result ends at once. Raises `Ended` if that attempt of the parent does not run,
        and `KeyError` if there is no such parent.
        """
        above = None if parent is None else self._actions[parent]
        if above and (above.phase != "running" or above.attempt != parent_attempt or above.verdict):
            raise Ended(parent)
        action = self._actions.get(id)
        if action is None:
            action = self._actions[id] = _Action(id, above, policy)
        elif action.phase != "ended" or _succeeded(action) or action.asked_by == parent_attempt:
            if action.verdict and action.asked_by != parent_attempt:
                action.renewal = policy
            action.asked_by = parent_attempt
            return False
        action.asked_by = parent_attempt
        self._in_flight += 1
        if above:
            above.children[id] = action
            self._pool.release(above.id)
        self._begin(now, action, policy)
        if known:
            self._effects.append(Queued(id))
            self._end(now, action, known)
        else:
            self._wait(now, action, 0.0)
        self._place(now)
        return True

    def ended(self, now: float, id: str, attempt: int, result: Result) -> None:
        """Take note that an attempt has ended with a result; other attempts are ignored."""
        if action := self._running(id, attempt):
            self._attempt_over(now, action, action.verdict or result, is_lost=False)

    def lost(self, now: float, id: str, attempt: int, result: Result) -> None:
        """Take note that an attempt will never end, since the place where it ran is gone."""
        if action := self._running(id, attempt):
            self._attempt_over(now, action, action.verdict or result, is_lost=not action.verdict)

    def abort(self, now: float, id: str, why: str, grace: float = _GRACE) -> None:
        """End an action with all that it has started, unless it has ended.

        Attempts that do not end within `grace` seconds are killed. Raises `KeyError`.
        """
        self._abort(now, self._actions[id], why, grace)
        self._place(now)

    def tick(self, now: float) -> None:
        """Do what is due."""
        while (due := self.next_alarm) is not None and due <= now:
            _, _, kind, id, _ = heapq.heappop(self._alarms)
            self._ring(now, kind, self._actions[id])
        self._place(now)

    def _ring(self, now: float, kind: _Alarm, action: _Action) -> None:
        limits = action.policy
        if kind == "ready":
            self._ready(now, action)
        elif kind == "kill":
            self._effects.append(Stop(action.id, action.attempt, at_once=True))
        elif kind == "runtime":
            what = f"ran longer than its timeout of {limits.max_runtime:g} s"
            self._stop(now, action, _late("MaxRuntimeExceededError", what, is_final=False))
        elif kind == "queued":
            what = f"waited longer than {limits.max_queued:g} s for a place to run"
            self._stop(now, action, _late("MaxQueuedTimeExceededError", what, is_final=True))
        else:
            what = f"did not end before its deadline of {limits.deadline:g} s"
            self._stop(now, action, _late("DeadlineExceededError", what, is_final=True))

    def _is_void(self, kind: _Alarm, id: str, turn: int) -> bool:
        action = self._actions[id]
        if kind == "deadline":
            return action.phase == "ended" or action.submission != turn
        # Each wait in the queue is a turn, and each attempt.
        return action.turn != turn or (kind == "runtime" and action.verdict is not None)

    def _alarm(self, at: float, kind: _Alarm, action: _Action) -> None:
        self._count += 1
        turn = action.submission if kind == "deadline" else action.turn
        heapq.heappush(self._alarms, (at, self._count, kind, action.id, turn))

    def _begin(self, now: float, action: _Action, policy: Policy) -> None:
        """Count an action's failures, and its time, from now on."""
        action.policy, action.result, action.renewal = policy, None, None
        action.failures = action.losses = 0
        action.submission += 1
        if policy.deadline:
            self._alarm(now + policy.deadline, "deadline", action)

    def _running(self, id: str, attempt: int) -> _Action | None:
        action = self._actions.get(id)
        is_current = action and action.phase == "running" and action.attempt == attempt
        return action if is_current else None

    def _wait(self, now: float, action: _Action, seconds: float) -> None:
        action.phase, action.turn = "queued", action.turn + 1
        self._effects.append(Queued(action.id))
        if action.policy.max_queued is not None:
            self._alarm(now + seconds + action.policy.max_queued, "queued", action)
        if seconds > 0:
            self._alarm(now + seconds, "ready", action)
        else:
            self._ready(now, action)

    def _ready(self, now: float, action: _Action) -> None:
        """Let an action begin, as soon as there is a place for it."""
        if action.children:  # Left by an attempt before, and they may hold all slots.
            self._pool.take(action.id, action.policy.claim)
            self._pool.release(action.id)
            self._start(now, action)
        else:
            self._queue.add(action.id, _parent(action), action.policy.claim)

    def _place(self, now: float) -> None:
        for id in self._queue.place(self._pool):
            self._start(now, self._actions[id])

    def _start(self, now: float, action: _Action) -> None:
        action.phase, action.turn, action.attempt = "running", action.turn + 1, action.attempt + 1
        if action.policy.max_runtime:
            self._alarm(now + action.policy.max_runtime, "runtime", action)
        self._effects.append(Start(action.id, action.attempt, self._pool.worker(action.id)))

    def _stop(self, now: float, action: _Action, verdict: Result, grace: float = _GRACE) -> None:
        """End an action with a result that is decided, as soon as its attempt has ended."""
        if action.phase == "queued":
            self._end(now, action, verdict)
            return
        if action.verdict is None:
            self._effects.append(Stop(action.id, action.attempt, at_once=False))
        if action.verdict is None or action.verdict.phase != "aborted":  # The first reason stands.
            action.verdict = verdict
        self._alarm(now + grace, "kill", action)

    def _abort(self, now: float, action: _Action, why: str, grace: float = _GRACE) -> None:
        for child in list(action.children.values()):
            self._abort(now, child, why, grace)
        if action.phase != "ended":
            action.renewal = None
            aborted = Result("aborted", error=Failure("ActionAbortedError", why))
            self._stop(now, action, aborted, grace)

    def _attempt_over(self, now: float, action: _Action, result: Result, *, is_lost: bool) -> None:
        self._pool.leave(action.id)
        action.verdict = None
        if action.renewal:
            self._begin(now, action, action.renewal)
            self._effects.append(Retry(action.id, action.attempt, result, 0.0))
            self._wait(now, action, 0.0)
        elif self._tries_again(action, result, is_lost=is_lost):
            if (
                is_lost
            ):  # Others in the worker may have been the cause, or may suffer from this one.
                action.policy = action.policy._replace(claim=action.policy.claim.alone())
            waits = action.policy.backoff
            wait = 0.0 if is_lost or not waits else waits[min(action.failures, len(waits)) - 1]
            self._effects.append(Retry(action.id, action.attempt, result, wait))
            self._wait(now, action, wait)
        else:
            self._end(now, action, result)
        self._place(now)

    def _tries_again(self, action: _Action, result: Result, *, is_lost: bool) -> bool:
        """Count a failed attempt, and return whether another one follows."""
        if is_lost:
            action.losses += 1
            return action.losses <= action.policy.lost_retries
        if not result.is_retried:
            return False
        action.failures += 1
        return action.failures <= action.policy.retries

    def _end(self, now: float, action: _Action, result: Result) -> None:
        self._queue.remove(action.id, _parent(action), action.policy.claim)
        self._pool.leave(action.id)
        action.phase, action.result, action.verdict = "ended", result, None
        action.turn += 1
        self._in_flight -= 1
        self._effects.append(End(action.id, action.attempt, result))
        if above := action.parent:
            del above.children[action.id]
            if above.phase == "running" and not above.children:
                self._pool.take(above.id, above.policy.claim)
        for child in list(action.children.values()):
            self._abort(now, child, f"{action.id} ended before it")


def _parent(action: _Action) -> str:
    return action.parent.id if action.parent else ""


def _succeeded(action: _Action) -> bool:
    return action.result is not None and action.result.error is None


def _late(kind: str, what: str, *, is_final: bool) -> Result:
    return Result("timed_out", error=Failure(kind, f"it {what}", is_final=is_final))
