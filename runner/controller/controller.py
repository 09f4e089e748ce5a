"""Controller of a run: it drives the machine of its actions with engines, workers and the history.

Everything happens in one thread, in turns. A turn hands what has happened to the machine, records
its effects in one transaction, and carries them out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flyte_build.errors import FlyteError
from flyte_build.runner.abort import LOOK, asked, take_asked_actions
from flyte_build.runner.action import ROOT, Action, label, remove_checkpoint, tidy, tidy_run
from flyte_build.runner.call import Call
from flyte_build.runner.engines.poll import wait_for
from flyte_build.runner.engines.protocol import Engine, Event, Waits
from flyte_build.runner.reporter import RunReporter
from flyte_build.runner.result import Failure, Result
from flyte_build.runner.signals import Interrupts, Stopped, check

from .capacity import Capacity
from .host import WorkerHost
from .inbox import Inbox
from .journal import Journal
from .machine import Effect, End, Machine, Retry, Start, Stop
from .outcome import lost, outcome, system_failure, written
from .placed import Answer, ChildPlaces, Ending, Placed, answer
from .policy import Policies

if TYPE_CHECKING:
    from concurrent.futures import Future

    from flyte_build.runner.child import ChildRequest
    from flyte_build.runner.history.actions import Actions, EarlierRun

_PATIENCE = 1.0  # Seconds that a task has to end when its run is aborted.
_GRACE = 5.0  # Seconds that it has when the command is interrupted.


class Controller:
    """Controller of the run `run`, whose directory is `folder`.

    `open_children` opens the places of children, when a worker first connects; without it, workers
    cannot call any. `open_actions` opens the recorder of children. Results of `earlier` are taken
    over.
    """

    def __init__(
        self,
        run: str,
        folder: str,
        reporter: RunReporter,
        open_actions: Callable[[], Actions],
        capacity: Capacity,
        open_children: Callable[[], ChildPlaces] | None = None,
        earlier: EarlierRun | None = None,
    ) -> None:
        self._earlier = earlier
        self._run, self._folder, self._reporter = run, folder, reporter
        self._open_children = open_children
        self._children: ChildPlaces | None = None
        self._machine, self._capacity = Machine(capacity.slots), capacity
        self._started = time.time()
        self._policies = Policies(capacity.slots, reporter.note)
        self._placed: dict[str, Placed] = {}
        self._engines: list[Engine] = []
        self.inbox = Inbox()
        self.journal = Journal(self._placed, reporter, open_actions, earlier)
        self._host = WorkerHost(folder) if open_children else None
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
        self._add(ROOT, Placed(call, engine))
        if known:
            action = self._action(ROOT, self._placed[ROOT])
            action.write()
            known.write(action.folder)
        self._machine.submit(time.monotonic(), ROOT, self._policies.of(call), known=known)
        seen = 0
        self._carry_out()
        self._listen()  # While the first worker begins.
        while True:
            self._carry_out()
            if self._machine.is_done:
                break
            self._wait(interrupts.descriptor)
            if self._error is None:
                check()
            now = time.monotonic()
            if interrupts.count > seen:
                grace = 0.0 if seen else _GRACE
                seen = interrupts.count
                self._interrupt(grace)
            self._look(now)
            self.inbox.answer()
            for each in self._engines:
                for event in each.events():
                    self._happened(now, event)
            self._machine.tick(now)
        if self._error:
            raise self._error
        result = self._machine.result(ROOT)
        assert result is not None
        return result

    def place(self, request: ChildRequest) -> Placed:
        """Return the place of a child action, which may have to be prepared first.

        This is called in other threads, since it can take long. Raises `KeyError`, and `FlyteError`
        if the task cannot be prepared.
        """
        above = self._placed[request.parent]
        placed = self._placed.get(request.id)
        if placed and not self._has_failed(request.id):
            return placed
        assert self._children is not None
        call, engine = self._children.place(above.call, request)
        return Placed(call, engine, request.parent, request.group)

    def deployed(self, text: str, project: str, domain: str) -> Mapping[str, Any]:
        """Return the document of a deployed task, in any thread; see `ChildPlaces.deployed`."""
        assert self._children is not None
        return self._children.deployed(text, project, domain)

    def submit(self, request: ChildRequest, placed: Placed) -> Result | None:
        """Begin a child action at its place, or find it, and return its result if it has ended.

        Raises `Ended`, `KeyError`, and `FlyteError` if it needs what this machine does not have.
        """
        former, known = self._placed.get(request.id), None
        if former is None and self._earlier:
            known = self._earlier.result(request.id)
        policy, now = self._policies.of(placed.call), time.monotonic()
        if self._machine.submit(
            now, request.id, policy, request.parent, request.parent_attempt, known
        ):
            placed.is_known = known is not None
            placed.attempt = former.attempt if former else 0
            self._add(request.id, placed)
        return self._machine.result(request.id)

    def abort(self, id: str, why: str) -> None:
        """Abort an action and all that it has called. Raises `KeyError`."""
        self._machine.abort(time.monotonic(), id, why, _PATIENCE)

    def endings(self, parent: str, since: int) -> Future[list[Ending]]:
        """Return the future ends of an action's children after a number.

        They are there as soon as there is one, or none when the run ends. Raises `KeyError`.
        """
        from concurrent.futures import Future

        placed, future = self._placed[parent], Future[list[Ending]]()
        placed.listeners.append(future)
        placed.taken(since)
        if placed.endings:
            placed.answer([*placed.endings])
        return future

    def tell(self, parent: str, attempt: int, answers: Mapping[str, Answer]) -> None:
        """Tell an attempt of an action, if it still runs, how calls of children were answered."""
        placed = self._placed[parent]
        if placed.attempt == attempt:
            for id, answer in answers.items():
                placed.tell(id, answer)

    def end(self) -> None:
        """Remove the socket. A command that is killed after the end of its run leaves nothing."""
        if self._host:
            self._host.remove()

    def close(self) -> None:
        """Stop serving workers, and kill what an error has left."""
        if not self._machine.is_done:
            for engine in self._engines:
                engine.close()
            tidy_run(self._folder)
        self.inbox.close()
        for placed in self._placed.values():
            placed.answer([])
        if self._children:
            self._children.close()
        if self._host:
            self._host.close()

    def _listen(self) -> None:
        if self._host:
            try:
                self._host.listen()
            except OSError as error:  # A task that calls none does not need it.
                self._reporter.note(
                    f"The tasks of this run cannot call others: {self._folder} has no room for a"
                    f" Unix socket ({error.strerror}). Set FLYTE_HOME to a directory that has."
                )

    def _has_failed(self, id: str) -> bool:
        result = self._machine.result(id)
        return result is not None and result.error is not None

    def _add(self, id: str, placed: Placed) -> None:
        self._placed[id] = placed
        if placed.engine not in self._engines:
            self._engines.append(placed.engine)

    def _wait(self, interrupts: int) -> None:
        """Wait until there is something to do, at most until the next look at requests to abort."""
        now, alarm = time.monotonic(), self._machine.next_alarm
        wakers = {self.inbox.fileno(), interrupts}
        waits = [
            Waits(read=(*wakers,), seconds=max(0.0, self._look_at - now)),
            *(engine.waits() for engine in self._engines),
        ]
        if alarm is not None:
            waits.append(Waits(seconds=max(0.0, alarm - now)))
        host = self._host if self._host and self._host.is_waiting else None
        if host:
            waits.append(Waits(read=(host.fileno(),)))
        ready = wait_for(waits)
        if host and host.fileno() in ready:
            from .worker_api import WorkerApi

            assert self._open_children is not None
            self._children = self._open_children()
            host.serve(WorkerApi(self, self._run, host.endpoint.token).application())
        for descriptor in ready & wakers:
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
                    name = placed.call.task.operational.short_name
                    self._reporter.note(f"{label(name, id)}: {request}.")
                    self._machine.abort(now, id, str(request), _PATIENCE)

    def _happened(self, now: float, event: Event) -> None:
        action = event.action
        result = written(event) if event.kind == "lost" else None
        # A result that was written counts, whatever became of its worker.
        if event.kind == "lost" and (result is None or result.error):
            self._machine.lost(now, action.id, action.attempt, lost(event))
        else:
            self._machine.ended(now, action.id, action.attempt, outcome(action, event))

    def _carry_out(self) -> None:
        while effects := self._machine.effects():
            for effect in effects:
                self._carry_out_one(effect)
            # An end is durable before its parent acts on it; what takes its place need not wait.
            self.journal.write(effects)
            for effect in effects:
                if isinstance(effect, End):
                    self._end(effect)

    def _carry_out_one(self, effect: Effect) -> None:
        placed = self._placed[effect.action]
        match effect:
            case Start(id, attempt, worker):
                placed.begin(attempt, worker)
                placed.gpus = self._gpus(id, placed)
                if self._earlier and attempt == 1:
                    self._earlier.bring_checkpoint(id, self._action(id, placed).folder)
                self._start(id, placed)
            case Stop(id, attempt, at_once):
                placed.engine.cancel(self._action(id, placed), at_once)
            case Retry(id):
                self._capacity.release_gpus(id)
                self.journal.say_retry(effect, placed.call)
            case End(id):
                self._capacity.release_gpus(id)

    def _end(self, effect: End) -> None:
        """Tidy up after an action, and tell its caller, if the attempt that runs has called it."""
        id, placed, result = effect.action, self._placed[effect.action], effect.result
        if self._machine.result(id) is not result:
            return  # It has begun anew.
        folder, is_done = self._action(id, placed).folder, result.error is None
        if placed.parent is None:
            if is_done:
                remove_checkpoint(folder)
        else:
            tidy(folder, is_done=is_done)
            above = self._placed[placed.parent]
            if self._machine.asked_by(id) == above.attempt:
                above.tell(id, answer(result))
        placed.end()

    def _interrupt(self, grace: float) -> None:
        request = asked(self._folder)
        why = str(request) if request else "it was interrupted"
        self._machine.abort(time.monotonic(), ROOT, why, grace)

    def _start(self, id: str, placed: Placed) -> None:
        try:
            placed.engine.submit(self._action(id, placed))
        except (KeyboardInterrupt, Stopped) as error:
            self._error = error
            self._interrupt(_GRACE)
            # The task has ended, or did not begin, whether or not the engine tells.
            aborted = Result("aborted", error=Failure("ActionAbortedError", "it was interrupted"))
            self._machine.ended(time.monotonic(), id, placed.attempt, aborted)
        except FlyteError as error:
            if id == ROOT:
                self._error = error
            failed = system_failure(error)
            now = time.monotonic()
            self._machine.ended(now, id, placed.attempt, Result("failed", error=failed))

    def _gpus(self, id: str, placed: Placed) -> Sequence[str]:
        """Return the names of GPUs for an attempt, or for all those that share its worker."""
        count = self._action(id, placed).limits.gpus
        if not placed.worker:
            return self._capacity.take_gpus(id, count)
        team = placed.call.task.semantic.environment
        return self._capacity.worker_gpus(f"{team}/{placed.worker}", count)

    def _action(self, id: str, placed: Placed) -> Action:
        return Action(
            id=id,
            run=self._run,
            folder=self._folder if id == ROOT else f"{self._folder}/actions/{id}",
            call=placed.call,
            parent=placed.parent,
            attempt=placed.attempt,
            gpus=placed.gpus,
            worker=placed.worker,
            started=self._started,
            endpoint=self._host.endpoint if self._host else None,
        )
