"""The `process` engine: each attempt runs in a Python process, which ends with the command."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flyte_build.cas.os_errors import storing
from flyte_build.errors import RuntimeSystemError
from flyte_build.runner.action import Action
from flyte_build.runner.limits import VISIBLE_GPUS
from flyte_build.runner.result import NO_RESULT, Result
from flyte_build.runner.worker.spawn import follow_size

from .attempt import Attempt, give, last_words, shut_down
from .output import Output
from .protocol import Event, Sink, Waits

if TYPE_CHECKING:
    from .kept import KeptWorkers, Team
    from .worker_process import WorkerProcess

_GRACE = 1.0  # Seconds that idle workers have to end.
_TURN = 0.001  # Seconds between two looks for that.


class ProcessEngine:
    """Engine that runs attempts in workers; `sink` receives the output.

    `start` returns a worker for an attempt, which may have been started early.
    """

    name = "process"
    runs_here = False
    acts_on = frozenset(("retries", "timeout", "env_vars", "resources", "secrets", "reusable"))

    def __init__(self, sink: Sink, start: Callable[[Action], WorkerProcess]) -> None:
        self._sink, self._start = sink, start
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._kept: KeptWorkers | None = None  # Most runs keep none.

    def submit(self, action: Action) -> None:
        """Begin an attempt, unless it has begun already (same action, same attempt).

        Raises `RuntimeSystemError` if the worker cannot be started, and `StoreUnavailable`.
        """
        if (action.id, action.attempt) in self._attempts:
            return
        with storing("write an action"):
            output = Output(action, self._sink)
        try:
            worker, team = self._started(action)
        except BaseException:
            output.close()
            raise
        self._attempts[action.id, action.attempt] = Attempt(action, worker, output, team)

    def _started(self, action: Action) -> tuple[WorkerProcess, Team | None]:
        """Return a worker that has its order, and the team that keeps it."""
        # Secrets in files are for containers: here, all processes would see them.
        order = {**action.order(action.folder), "files": {}, "guarded": True}
        if action.gpus:
            order["env"] = {VISIBLE_GPUS: ",".join(action.gpus), **order["env"]}
        team = self._team(action)
        try:
            worker = self._kept_worker(team) or self._start(action)
        except OSError as error:  # The system has no more processes, or the interpreter is gone.
            raise _not_started(error.strerror or str(error)) from None
        team = team if worker.sends_result else None
        try:
            give(worker, action, {**order, "keeps": bool(team)})
        except BrokenPipeError:
            raise _not_started(last_words(worker)) from None
        except BaseException:
            worker.dismiss()
            raise
        return worker, team

    def _team(self, action: Action) -> Team | None:
        """Return the team whose workers may run an action; None without such workers."""
        if action.parent is None or "reusable" not in action.call.task.operational.options:
            return None
        from .kept import KeptWorkers, team_of

        self._kept = self._kept or KeptWorkers()
        return team_of(action)

    def _kept_worker(self, team: Team | None) -> WorkerProcess | None:
        while self._kept and team and (worker := self._kept.take(team)):
            if not worker.has_ended():
                return worker
            worker.dismiss()
        return None

    def waits(self) -> Waits:
        """Return the output of workers, their ends, and the readers of held output."""
        waits = [attempt.waits() for attempt in self._attempts.values()]
        if self._kept:
            waits.append(Waits(seconds=self._kept.seconds()))
        return Waits(
            [each for one in waits for each in one.read],
            [each for one in waits for each in one.write],
            min((one.seconds for one in waits if one.seconds is not None), default=None),
        )

    def events(self) -> list[Event]:
        """Pass on output, and return the attempts that have ended, without waiting."""
        found = []
        for attempt in list(self._attempts.values()):
            if attempt.has_terminal:
                follow_size(attempt.worker.output)
            attempt.pass_on()
            if attempt.is_over():
                found.append(self._finish(attempt))
        for worker in self._kept.over() if self._kept else ():
            worker.dismiss()
        return found

    def cancel(self, action: Action, at_once: bool) -> None:
        """Ask the attempt and all its processes to end; kill them with `at_once`."""
        if attempt := self._attempts.get((action.id, action.attempt)):
            attempt.signal(signal.SIGKILL if at_once else signal.SIGTERM)

    def running(self) -> list[Action]:
        """Return the attempts that have not ended."""
        return [attempt.action for attempt in self._attempts.values()]

    def close(self) -> None:
        """Kill all remaining workers; those that are idle may end by themselves."""
        attempts, self._attempts = [*self._attempts.values()], {}
        for attempt in attempts:
            attempt.abandon()
        idle = [*self._kept.over(all=True)] if self._kept else []
        for worker in idle:
            shut_down(worker)
        until = time.monotonic() + _GRACE
        for worker in idle:
            while not worker.has_ended() and time.monotonic() < until:
                time.sleep(_TURN)
            worker.dismiss()

    def _finish(self, attempt: Attempt) -> Event:
        del self._attempts[attempt.action.id, attempt.action.attempt]
        result = Result.decoded(bytes(attempt.sent))
        attempt.worker.learn(attempt.packages())
        code, why = None, attempt.worker.why
        if attempt.has_returned and result is not None:
            attempt.output.close()
            assert self._kept and attempt.team
            self._kept.keep(attempt.team, attempt.worker)
        else:
            code = attempt.reap()
        if result is not None and not attempt.is_asked:
            return Event(attempt.action, "failed" if result.error else "succeeded", result=result)
        event = _event(attempt.action, code, why, cancelled=attempt.is_asked)
        if event.kind == "lost":
            from .orphans import kill_orphans

            kill_orphans(attempt.action)
        return event


def _not_started(why: str) -> RuntimeSystemError:
    return RuntimeSystemError("RuntimeSystemError", "Cannot start a worker", why=why)


def _event(action: Action, code: int | None, why: str, *, cancelled: bool) -> Event:
    if cancelled:
        return Event(action, "cancelled", code)
    if code is None:
        why = f"it was not forked: {why}" if why else "the server that had forked its process ended"
        return Event(action, "lost", why=why)
    if code == -signal.SIGKILL or code == 137:
        return Event(
            action,
            "lost",
            137,
            "it was killed (SIGKILL), most likely because the machine ran out of memory",
            out_of_memory=True,
        )
    if code < 0:
        return Event(
            action,
            "failed",
            128 - code,
            f"it ended with signal {-code} ({signal.strsignal(-code)})",
        )
    if code == NO_RESULT:
        return Event(
            action,
            "failed",
            code,
            "its result could not be written: is the disk full, or the run's directory gone?",
        )
    return Event(
        action,
        "succeeded" if code == 0 else "failed",
        code,
        "" if code == 0 else f"its process ended with exit code {code}",
    )
