"""Controller of a run: it drives the machine of its actions with engines, workers and the history.

Everything happens in one thread, in turns. A turn hands what has happened to the machine, records
its effects in one transaction, and carries them out.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from flyte_build.errors import FlyteError
from flyte_build.runner.abort import LOOK, asked, take_asked_actions
from flyte_build.runner.action import Action, remove_checkpoint
from flyte_build.runner.call import Call
from flyte_build.runner.child import ROOT, ChildRequest
from flyte_build.runner.engines.protocol import Engine, Event, Waits
from flyte_build.runner.reporter import ActionChange, RunReporter
from flyte_build.runner.result import Failure, Phase, Result
from flyte_build.runner.signals import Interrupts, Stopped

from .host import WorkerHost
from .machine import Effect, End, Ended, Machine, Policy, Queued, Retry, Start, Stop
from .policy import beyond, policy_of
from .slots import Slots

if TYPE_CHECKING:
    from flyte_build.runner.history.actions import Actions, EarlierRun, NewAction

_PATIENCE = 1.0  # Seconds that a task has to end when its run is aborted.
_GRACE = 5.0  # Seconds that it has when the command is interrupted.

Place = Callable[[Call, ChildRequest], tuple[Call, Engine]]
"""Returns the call of a child, given its parent's, and the engine for it; raises `FlyteError`."""


class Ending(NamedTuple):
    """End of a child, as its parent is told; `number` counts the ends below one parent."""

    number: int
    id: str
    result: Result


@dataclass(eq=False)
class _Placed:
    """An action with its engine, and what its worker is told about its children."""

    call: Call
    engine: Engine
    parent: str | None = None
    group: str = ""
    is_known: bool = False  # Its result comes from an earlier run.
    attempt: int = 0
    endings: list[Ending] = field(default_factory=list)
    listeners: list[Future[list[Ending]]] = field(default_factory=list)

    def answer(self, endings: list[Ending]) -> None:
        """Answer everyone who waits for the end of a child."""
        listeners, self.listeners = self.listeners, []
        for listener in listeners:
            if listener.set_running_or_notify_cancel():
                listener.set_result(endings)


class Controller:
    """Controller of the run `run`, whose directory is `folder`.

    `place` is for its children; without it, workers cannot call any. `open_actions` opens the
    recorder of children. Results of `earlier` are taken over.
    """

    def __init__(
        self,
        run: str,
        folder: str,
        reporter: RunReporter,
        open_actions: Callable[[], Actions],
        total: Slots,
        place: Place | None = None,
        earlier: EarlierRun | None = None,
    ) -> None:
        self._earlier = earlier
        self._run, self._folder, self._reporter = run, folder, reporter
        self._open_actions, self._place = open_actions, place
        self._machine, self._total, self._started = Machine(total), total, time.time()
        self._noted: set[str] = set()
        self._placed: dict[str, _Placed] = {}
        self._engines: list[Engine] = []
        self._requests: deque[Callable[[], None]] = deque()
        self._lock, self._is_closed = threading.Lock(), False
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._host = WorkerHost(folder) if place else None
        self._recorder: Actions | None = None
        self._error: BaseException | None = None
        self._look_at = 0.0

    @property
    def attempts(self) -> int:
        """Number of attempts of the root."""
        return self._placed[ROOT].attempt if ROOT in self._placed else 0

    def carry_out(
        self, call: Call, engine: Engine, interrupts: Interrupts, known: Result | None = None
    ) -> Result:
        """Run a call with everything that it calls, and return its result, or the `known` one.

        Raises the error of an engine that cannot start the root, and the interruption of a task
        that runs in this process.
        """
        self._add(ROOT, _Placed(call, engine))
        self._machine.submit(time.monotonic(), ROOT, self._policy(call), known=known)
        seen = 0
        while True:
            self._carry_out()
            if self._machine.is_done:
                break
            self._wait(interrupts.descriptor)
            now = time.monotonic()
            if interrupts.count > seen:
                grace = 0.0 if seen else _GRACE
                seen = interrupts.count
                self._interrupt(grace)
            self._look(now)
            while self._requests:
                self._requests.popleft()()
            for each in self._engines:
                for event in each.events():
                    self._happened(now, event)
            self._machine.tick(now)
        if self._error:
            raise self._error
        result = self._machine.result(ROOT)
        assert result is not None
        return result

    def ask(self, request: Callable[[], Any]) -> Future[Any]:
        """Call `request` in the controller's thread, and return its future result.

        After the run's end, that is the exception `Ended`.
        """
        future: Future[Any] = Future()

        def answer() -> None:
            try:
                future.set_result(request())
            except Exception as error:
                future.set_exception(error)

        with self._lock:
            if self._is_closed:
                future.set_exception(Ended(ROOT))
                return future
            self._requests.append(answer)
            try:
                os.write(self._waker, b"!")
            except BlockingIOError:
                pass  # It is awake already.
        return future

    def submit(self, request: ChildRequest) -> Result | None:
        """Begin a child action, or find it, and return its result if it has ended.

        Raises `Ended`, `KeyError`, and `FlyteError` if the task cannot be prepared.
        """
        above, known = self._placed[request.parent], None
        if request.id not in self._placed:
            assert self._place is not None
            call, engine = self._place(above.call, request)
            known = self._earlier.result(request.id) if self._earlier else None
            placed = _Placed(call, engine, request.parent, request.group, is_known=bool(known))
            self._add(request.id, placed)
        policy = self._policy(self._placed[request.id].call)
        self._machine.submit(
            time.monotonic(), request.id, policy, request.parent, request.parent_attempt, known
        )
        return self._machine.result(request.id)

    def abort(self, id: str, why: str) -> None:
        """Abort an action and all that it has called. Raises `KeyError`."""
        self._machine.abort(time.monotonic(), id, why, _PATIENCE)

    def find_trace(self, id: str) -> Result | None:
        """Return the result of a traced call that succeeded, in this run or the earlier one."""
        found = self._own_recorder().find(id)
        return found or (self._earlier.result(id) if self._earlier else None)

    def save_trace(self, trace: NewAction, result: Result) -> None:
        """Record a traced call that has ended."""
        recorder, now = self._own_recorder(), time.time()
        with recorder.commit():
            recorder.queued(trace, now)
            recorder.ended(trace.id, 0, result, now)

    def _own_recorder(self) -> Actions:
        if self._recorder is None:
            self._recorder = self._open_actions()
        return self._recorder

    def endings(self, parent: str, since: int) -> Future[list[Ending]]:
        """Return the future ends of an action's children after a number.

        They are there as soon as there is one, or none when the run ends. Raises `KeyError`.
        """
        placed, future = self._placed[parent], Future[list[Ending]]()
        placed.listeners.append(future)
        if placed.endings[since:]:
            placed.answer(placed.endings[since:])
        return future

    def close(self) -> None:
        """Stop serving workers."""
        with self._lock:
            self._is_closed = True
        while self._requests:
            self._requests.popleft()()
        for placed in self._placed.values():
            placed.answer([])
        if self._host:
            self._host.close()
        os.close(self._wake)
        os.close(self._waker)

    def _policy(self, call: Call) -> Policy:
        """Return the policy of a call, whose needs fit this machine. Raises `PreparationError`."""
        policy = policy_of(call.task, call.run.lost_retries)
        note = beyond(call.task, policy.needs, self._total)
        if note and note not in self._noted:
            self._reporter.note(note)
            self._noted.add(note)
        return policy._replace(needs=policy.needs.capped(self._total))

    def _add(self, id: str, placed: _Placed) -> None:
        self._placed[id] = placed
        if placed.engine not in self._engines:
            self._engines.append(placed.engine)

    def _wait(self, *descriptors: int) -> None:
        """Wait until there is something to do, at most until the next look at requests to abort."""
        now, alarm = time.monotonic(), self._machine.next_alarm
        waits = [
            Waits(read=(self._wake, *descriptors), seconds=max(0.0, self._look_at - now)),
            *(engine.waits() for engine in self._engines),
        ]
        if alarm is not None:
            waits.append(Waits(seconds=max(0.0, alarm - now)))
        host = self._host if self._host and not self._host.is_serving else None
        if host:
            waits.append(Waits(read=(host.fileno(),)))
        ready = wait_for(waits)
        if host and host.fileno() in ready:
            from .worker_api import WorkerApi

            host.serve(WorkerApi(self, self._run, host.endpoint.token).application())
        for descriptor in ready & {self._wake, *descriptors}:
            os.read(descriptor, 1 << 12)

    def _look(self, now: float) -> None:
        """Look for requests to abort from other processes."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        if request := asked(self._folder):
            self._machine.abort(now, ROOT, str(request), _PATIENCE)
        if any(self._machine.children(ROOT)):
            for id, request in take_asked_actions(self._folder):
                placed = self._placed.get(id)
                if placed is not None and self._machine.result(id) is None:
                    self._reporter.note(f"{placed.call.task.name} {id}: {request}.")
                    self._machine.abort(now, id, str(request), _PATIENCE)

    def _happened(self, now: float, event: Event) -> None:
        action = event.action
        if event.kind == "lost":
            kind = "OOMError" if event.out_of_memory else "RuntimeSystemError"
            lost = Result("failed", error=Failure(kind, event.why, "lost"))
            self._machine.lost(now, action.id, action.attempt, lost)
        else:
            self._machine.ended(now, action.id, action.attempt, outcome(action, event))

    def _carry_out(self) -> None:
        while effects := self._machine.effects():
            below = [effect for effect in effects if effect.action != ROOT]
            self._record(below)
            for effect in below:
                self._report(effect)
            for effect in effects:
                self._carry_out_one(effect)

    def _carry_out_one(self, effect: Effect) -> None:
        placed = self._placed[effect.action]
        match effect:
            case Start(id, attempt):
                placed.attempt = attempt
                placed.answer([])
                placed.endings.clear()  # Each attempt is told anew.
                if self._earlier and attempt == 1:
                    self._earlier.bring_checkpoint(id, self._action(id, placed).folder)
                self._start(id, placed)
            case Stop(id, attempt, at_once):
                placed.engine.cancel(self._action(id, placed), at_once)
            case Retry():
                self._say_retry(effect, placed.call)
            case End(id, result):
                action = self._action(id, placed)
                if result.error is None:
                    remove_checkpoint(action.folder)
                if placed.parent is None:
                    return
                action.tidy()
                above = self._placed[placed.parent]
                ending = Ending(len(above.endings) + 1, id, result)
                above.endings.append(ending)
                above.answer([ending])

    def _interrupt(self, grace: float) -> None:
        request = asked(self._folder)
        why = str(request) if request else "it was interrupted"
        self._machine.abort(time.monotonic(), ROOT, why, grace)

    def _start(self, id: str, placed: _Placed) -> None:
        try:
            placed.engine.submit(self._action(id, placed))
        except (KeyboardInterrupt, Stopped) as error:
            self._error = error
            self._interrupt(_GRACE)
        except FlyteError as error:
            if id == ROOT:
                self._error = error
            failed = system_failure(error)
            now = time.monotonic()
            self._machine.ended(now, id, placed.attempt, Result("failed", error=failed))

    def _action(self, id: str, placed: _Placed) -> Action:
        return Action(
            id=id,
            run=self._run,
            folder=self._folder if id == ROOT else f"{self._folder}/actions/{id}",
            call=placed.call,
            parent=placed.parent,
            attempt=placed.attempt,
            started=self._started,
            endpoint=self._host.endpoint if self._host else None,
        )

    def _record(self, effects: Iterable[Effect]) -> None:
        """Record what happens to children, so that it is durable before anyone acts on it."""
        from flyte_build.runner.history.actions import NewAction

        effects = list(effects)
        if not effects:
            return
        recorder, now = self._own_recorder(), time.time()
        with recorder.commit():
            for effect in effects:
                placed = self._placed[effect.action]
                match effect:
                    case Queued(id):
                        assert placed.parent is not None
                        recorder.queued(
                            NewAction(
                                id,
                                placed.parent,
                                placed.call.task.name,
                                placed.group,
                                placed.engine.name,
                                placed.call.inputs,
                                self._earlier.run if self._earlier and placed.is_known else "",
                            ),
                            now,
                        )
                    case Start(id, attempt):
                        recorder.started(id, attempt, now)
                    case Retry(id, attempt, result):
                        recorder.attempted(id, attempt, result, now)
                    case End(id, result):
                        recorder.ended(id, placed.attempt, result, now)

    def _report(self, effect: Effect) -> None:
        phase: Phase
        why = ""
        match effect:
            case Queued():
                phase = "queued"
            case Start():
                phase = "running"
            case End(_, result):
                phase = result.phase
                if result.error:
                    why = f"{result.error.type}: {result.error.message}".partition("\n")[0]
            case _:
                return
        placed = self._placed[effect.action]
        self._reporter.action_changed(
            ActionChange(
                effect.action, placed.parent or "", placed.call.task.name, placed.group, phase, why
            )
        )

    def _say_retry(self, effect: Retry, call: Call) -> None:
        reason = effect.result.error.message if effect.result.error else effect.result.phase
        again = f"trying again in {effect.wait:g} s" if effect.wait else "trying again"
        of = f" of {call.task.operational.retries + 1}"
        which = "" if effect.action == ROOT else f"{call.task.name} {effect.action}: "
        is_lost = effect.result.error is not None and effect.result.error.kind == "lost"
        verb = "was lost" if is_lost else "failed"
        self._reporter.note(
            f"{which}Attempt {effect.attempt}{'' if is_lost else of} {verb} ({reason}); {again}."
        )


def system_failure(error: FlyteError) -> Failure:
    """Return the failure of an action that could not be carried out because of `error`."""
    message = f"{error.what}: {error.why}" if error.why else error.what
    return Failure(type(error).__name__, message, "system", hint=error.hint, is_final=True)


def outcome(action: Action, event: Event) -> Result:
    """Return the result of an attempt that has ended."""
    if result := Result.read(action.folder):
        # The task can write the file, so its phase counts for nothing.
        phase: Phase = "timed_out" if event.kind == "timed_out" else "failed"
        return result._replace(phase=phase) if result.error else result
    # Without a result it has not succeeded, even if the engine reports success.
    why = event.why or "its process ended without a result"
    if event.kind == "succeeded":
        why = "its process ended with exit code 0, but without a result (os._exit?)"
    if event.out_of_memory:
        return Result("failed", error=Failure("OOMError", why))
    return Result("failed", error=Failure("RuntimeUnknownError", why, "system"))


def wait_for(waits: Iterable[Waits]) -> set[int]:
    """Wait until one of several conditions holds, and return the descriptors that are ready."""
    masks, seconds = dict[int, int](), list[float]()
    for each in waits:
        for descriptor in each.read:
            masks[descriptor] = masks.get(descriptor, 0) | select.POLLIN
        for descriptor in each.write:
            masks[descriptor] = masks.get(descriptor, 0) | select.POLLOUT
        if each.seconds is not None:
            seconds.append(each.seconds)
    poll = select.poll()
    for descriptor, mask in masks.items():
        poll.register(descriptor, mask)
    return {descriptor for descriptor, _ in poll.poll(1000 * min(seconds) if seconds else None)}
