"""Attempts in workers: from their submission to their events."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from flyte_build.cas.os_errors import storing
from flyte_build.errors import RuntimeSystemError
from flyte_build.runner.action import Action
from flyte_build.runner.result import NO_RESULT, Result
from flyte_build.runner.worker.spawn import follow_size

from .attempt import Attempt, give, last_words
from .output import output_of
from .protocol import Event, Sink, Waits

if TYPE_CHECKING:
    from .kept import Crew
    from .team import Team
    from .worker_process import WorkerProcess, Workplace


class Workers:
    """Attempts in workers at one `place`; `sink` receives the output."""

    def __init__(self, place: Workplace, sink: Sink) -> None:
        self._place, self._sink = place, sink
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._crews: dict[bool, Crew] = {}  # Most runs keep no workers.

    def submit(self, action: Action) -> None:
        """Begin an attempt, unless it has begun already (same action, same attempt).

        Raises `RuntimeSystemError` if the worker cannot be started, and `StoreUnavailable`.
        """
        if (action.id, action.attempt) in self._attempts:
            return
        with storing("write an action"):
            self._place.prepare(action.folder)
            output = output_of(action, self._sink)
        try:
            worker, team = self._started(action)
        except BaseException:
            output.close()
            raise
        self._attempts[action.id, action.attempt] = Attempt(action, worker, output, team)

    def _started(self, action: Action) -> tuple[WorkerProcess, Team | None]:
        """Return a worker that has its order, and the team that keeps it."""
        team = _team(action)
        try:
            worker = self._crew(action).worker(team, action) if team else self._place.start(action)
        except OSError as error:  # The system has no more processes, or the interpreter is gone.
            raise _not_started(error.strerror or str(error)) from None
        order = self._place.order(action)
        try:
            give(worker, self._place.seen(action), {**order, "keeps": bool(team)})
        except BrokenPipeError:
            raise _not_started(last_words(worker)) from None
        except BaseException:
            worker.dismiss()
            raise
        return worker, team

    def _crew(self, action: Action) -> Crew:
        """Return the workers of teams among which that of an action is."""
        if (is_shared := action.worker > 0) not in self._crews:
            from .kept import KeptWorkers
            from .shared import SharedWorkers

            self._crews[is_shared] = (
                SharedWorkers(self._place, self._sink)
                if is_shared
                else KeptWorkers(self._place.start)
            )
        return self._crews[is_shared]

    def waits(self) -> Waits:
        """Return the output of workers, their ends, and the readers of held output."""
        waits = [attempt.waits() for attempt in self._attempts.values()]
        for crew in self._crews.values():
            waits += crew.waits()
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
        for crew in self._crews.values():
            crew.tend()
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
        for crew in self._crews.values():
            crew.close()

    def _finish(self, attempt: Attempt) -> Event:
        action, worker = attempt.action, attempt.worker
        del self._attempts[action.id, action.attempt]
        result = Result.decoded(bytes(attempt.sent))
        worker.learn(attempt.packages())
        code, why = None, worker.why
        is_kept = attempt.has_returned and result is not None
        if is_kept:
            attempt.output.close()
        else:
            code = attempt.reap()
        if attempt.team:
            self._crew(action).leave(attempt.team, worker, has_ended=not is_kept)
        if result is not None and not attempt.is_asked:
            result = self._place.advised(action, result)
            return Event(action, "failed" if result.error else "succeeded", result=result)
        event = _event(action, code, why, cancelled=attempt.is_asked)
        if event.kind == "lost":
            event = self._place.explained(event, worker)
        event = event._replace(has_begun=worker.pid is not None)
        if event.kind == "lost":
            from .orphans import kill_orphans

            kill_orphans(_started_as(action).marks)
        return event


def _team(action: Action) -> Team | None:
    """Return the team whose workers may run an action; None without one."""
    if action.parent is None or "reusable" not in action.call.task.operational.options:
        return None
    from .team import team_of

    return team_of(action)


def _started_as(action: Action) -> Action:
    """Return the action for which a worker was started."""
    if not action.worker:
        return action
    from .shared import place_of

    return place_of(action)


def _not_started(why: str) -> RuntimeSystemError:
    return RuntimeSystemError("RuntimeSystemError", "Cannot start a worker", why=why)


def _event(action: Action, code: int | None, why: str, *, cancelled: bool) -> Event:
    if cancelled:
        return Event(action, "cancelled", code)
    if code is None:
        return Event(action, "lost", why=why or "the server that had forked its process ended")
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
