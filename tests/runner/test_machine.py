"""The machine of a run's actions, with an engine that is simulated in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyte_build.runner.controller.machine import (
    End,
    Ended,
    Machine,
    Policy,
    Queued,
    Retry,
    Start,
    Stop,
)
from flyte_build.runner.controller.slots import Claim, Slots
from flyte_build.runner.result import Failure, Result

pytestmark = pytest.mark.quick

Outcome = Literal["succeeds", "fails", "is lost", "hangs", "ignores signals"]
TOTAL = Slots(cpu=2.0, memory=8, gpu=1, actions=3)
PLAIN = Policy()
GOOD = Result("succeeded", {"o0": 1})
LOST = Result("failed", error=Failure("RuntimeSystemError", "its worker was killed", "lost"))
BAD = Result("failed", error=Failure("ValueError", "no"))


@dataclass(frozen=True)
class Program:
    """A task: it submits its children, one after the other or all at once, then ends.

    `outcomes` are those of its attempts; the last one counts for all later attempts, too.
    """

    policy: Policy = PLAIN
    seconds: float = 1.0
    outcomes: Sequence[Outcome] = ("succeeds",)
    children: Sequence[Program] = ()
    at_once: bool = True
    waits: bool = True


@dataclass
class Attempt:
    """An attempt in the simulated engine."""

    program: Program
    waits_for: set[str] = field(default_factory=set)
    next_child: int = 0
    asked: bool = False


class Simulation:
    """A machine with its engine, and the checks that hold after each event."""

    def __init__(self, root: Program, total: Slots = TOTAL) -> None:
        self.machine, self.total, self.now = Machine(total), total, 0.0
        self.programs: dict[str, Program] = {"a0": root}
        self.attempts: dict[str, tuple[int, Attempt]] = {}
        self.events: list[tuple[float, int, str, str, int]] = []
        self.log: list[str] = []
        self.results: dict[str, Result] = {}
        self.workers: dict[str, int] = {}
        self.claims: dict[str, Claim] = {}
        self.lost: set[str] = set()
        self._count = 0
        self.machine.submit(0.0, "a0", root.policy)

    def at(self, seconds: float, what: str, id: str, attempt: int = 0) -> None:
        """Let something happen at a time."""
        self._count += 1
        heapq.heappush(self.events, (seconds, self._count, what, id, attempt))

    def run(self) -> Result:
        """Run until everything has ended, and return the root's result."""
        self._carry_out()
        while not self.machine.is_done:
            alarm = self.machine.next_alarm
            assert self.events or alarm is not None, f"nothing is left to happen: {self.log}"
            if self.events and (alarm is None or self.events[0][0] <= alarm):
                self.now, _, what, id, attempt = heapq.heappop(self.events)
                self._happen(what, id, attempt)
            else:
                assert alarm is not None and alarm >= self.now
                self.now = alarm
                self.machine.tick(self.now)
            self._carry_out()
        assert not self.attempts and self.machine.next_alarm is None
        return self.results["a0"]

    def _happen(self, what: str, id: str, attempt: int) -> None:
        if what == "abort":
            if id in self.results or id in self.attempts:
                self.machine.abort(self.now, id, "somebody aborted it")
            return
        number, running = self.attempts.get(id, (0, None))
        if running is None or (attempt and number != attempt):
            return
        if what == "work":
            self._work(id, number, running)
            return
        del self.attempts[id]
        if what == "lose" or what == "is lost":
            self.lost.add(id)
            self.machine.lost(self.now, id, number, LOST)
        else:
            self.machine.ended(self.now, id, number, GOOD if what == "succeeds" else BAD)

    def _work(self, id: str, number: int, running: Attempt) -> None:
        """Go on with an attempt: submit its next children, or end it."""
        program = running.program
        while running.next_child < len(program.children) and not running.asked:
            if running.waits_for and not program.at_once:
                return
            child, at = program.children[running.next_child], f"{id}.{running.next_child}"
            running.next_child += 1
            self.programs[at] = child
            try:
                self.machine.submit(self.now, at, child.policy, id, number)
            except Ended:
                return
            result = self.machine.result(at)
            if program.waits and result is None:
                running.waits_for.add(at)
        if not running.waits_for:
            outcome = program.outcomes[min(number, len(program.outcomes)) - 1]
            if outcome not in ("hangs", "ignores signals"):
                self.at(self.now + program.seconds, outcome, id, number)

    def _carry_out(self) -> None:
        while effects := self.machine.effects():
            for effect in effects:
                self.log.append(f"{self.now:g} {effect}")
                self._carry_out_one(effect)
            for effect in effects:
                if isinstance(effect, Start):
                    self._check_claim(self.claims[effect.action])

    def _check_claim(self, claim: Claim) -> None:
        """Check that nothing is started that takes more than is free.

        An action that waits for children holds nothing; one that resumes may hold what is not free.
        """
        running = [id for id in self.attempts if not any(True for _ in self.machine.children(id))]
        held, team, workers = Slots(), 0, set[tuple[str, int]]()
        for id in running:
            own, worker = self.claims[id], self.workers[id]
            is_first = not worker or (own.team, worker) not in workers
            workers.add((own.team, worker))
            held = held.plus(own.slots if is_first else Slots(actions=own.slots.actions))
            team += own.team == claim.team
        lacking = held.lacking(self.total)
        assert not claim.slots.only(lacking).lacking(Slots()), self.log
        assert not claim.team or team <= claim.most * claim.seats, self.log

    def _carry_out_one(self, effect: Start | Stop | Retry | End | Queued) -> None:
        id = effect.action
        if isinstance(effect, Start):
            assert id not in self.attempts and id not in self.results
            claim = self.programs[id].policy.claim
            if claim.seats > 1 and not effect.worker:
                assert id in self.lost
                claim = claim.alone()
            assert effect.worker in (range(1, claim.most + 1) if claim.seats > 1 else [0])
            self.attempts[id] = (effect.attempt, Attempt(self.programs[id]))
            self.workers[id], self.claims[id] = effect.worker, claim
            self.at(self.now, "work", id, effect.attempt)
        elif isinstance(effect, Stop):
            number, running = self.attempts[id]
            assert number == effect.attempt
            outcome = running.program.outcomes[min(number, len(running.program.outcomes)) - 1]
            running.asked = True
            if effect.at_once or outcome != "ignores signals":
                self.at(self.now + 0.1, "fails", id, number)
        elif isinstance(effect, Retry):
            assert effect.result.error is not None and id not in self.attempts
        elif isinstance(effect, Queued):
            self.results.pop(id, None)
        else:
            assert id not in self.attempts and id not in self.results, "it ended twice"
            self.results[id] = effect.result
            above = id.rpartition(".")[0]
            if above in self.attempts and id in self.attempts[above][1].waits_for:
                self.attempts[above][1].waits_for.discard(id)
                self.at(self.now, "work", above, self.attempts[above][0])


amounts = st.builds(
    Slots,
    cpu=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    memory=st.sampled_from([0, 3, 8]),
    gpu=st.sampled_from([0, 0, 0, 1]),
    actions=st.just(1),
)
TEAMS = [
    Claim(Slots(cpu=1.0, actions=1), "narrow", 1),
    Claim(Slots(cpu=0.5, actions=1), "wide", 2),
    Claim(Slots(gpu=1, actions=1), "wide", 2),
    Claim(Slots(cpu=1.0, actions=1), "shared", 2, 3),
    Claim(Slots(cpu=2.0, memory=3, actions=1), "large", 1, 2),
]
policies = st.builds(
    Policy,
    retries=st.integers(0, 2),
    backoff=st.sampled_from([(), (0.5,), (1.0, 2.0)]),
    lost_retries=st.integers(0, 2),
    max_queued=st.sampled_from([None, None, 0.5, 3.0]),
    max_runtime=st.sampled_from([None, None, 0.5, 5.0]),
    deadline=st.sampled_from([None, None, 2.0, 20.0]),
    claim=st.builds(Claim, amounts, st.just(""), st.just(0), st.just(1))
    | st.sampled_from([*TEAMS]),
)
outcomes = st.lists(
    st.sampled_from(["succeeds", "succeeds", "succeeds", "fails", "is lost"]),
    min_size=1,
    max_size=3,
)


def programs(children: st.SearchStrategy[list[Program]]) -> st.SearchStrategy[Program]:
    """Return a strategy of programs that call such children."""
    return st.builds(
        Program,
        policy=policies,
        seconds=st.sampled_from([0.0, 0.25, 1.0]),
        outcomes=outcomes,
        children=children,
        at_once=st.booleans(),
        waits=st.sampled_from([True, True, True, False]),
    )


trees = st.recursive(
    programs(st.just([])), lambda below: programs(st.lists(below, max_size=4)), max_leaves=12
)
ids = st.lists(st.integers(0, 3), max_size=3).map(lambda path: ".".join(["a0", *map(str, path)]))
faults = st.lists(
    st.tuples(st.floats(0.0, 10.0), st.sampled_from(["abort", "lose"]), ids), max_size=4
)


@settings(max_examples=300, deadline=None)
@given(trees, faults)
def test_every_tree_ends(root: Program, faults: list[tuple[float, str, str]]) -> None:
    """Whatever fails, is lost or aborted: each action ends once, and nothing runs on."""
    simulation = Simulation(root)
    for seconds, what, id in faults:
        simulation.at(seconds, what, id)
    simulation.run()
    for id, result in simulation.results.items():
        assert (result.phase == "succeeded") == (result.error is None), id


def test_parents_that_wait_hold_no_slots() -> None:
    """A chain that is deeper than the machine has processors ends."""
    chain = Program()
    for _ in range(50):
        chain = Program(children=[chain])
    assert Simulation(chain).run() == GOOD


def test_the_processors_limit_what_runs() -> None:
    """Four tasks of a second each take two seconds on two processors."""
    simulation = Simulation(Program(children=[Program()] * 4, seconds=0.0))
    assert simulation.run() == GOOD and simulation.now == 2.0


def test_a_task_without_a_gpu_passes_one_that_waits_for_it() -> None:
    """The one for the GPU is not overtaken by another for it, though."""
    gpu = Policy(claim=Claim(Slots(cpu=1.0, gpu=1, actions=1)))
    root = Program(children=[Program(gpu, 3.0), Program(gpu, 1.0), *[Program()] * 2], seconds=0.0)
    simulation = Simulation(root)
    assert simulation.run() == GOOD and simulation.now == 4.0


def test_a_team_has_so_many_workers() -> None:
    """More calls wait for a worker of their team; other calls pass them, and so may their own."""
    one = Policy(claim=Claim(Slots(actions=1), "team", 1))
    simulation = Simulation(Program(children=[Program(one, 2.0)] * 3 + [Program()], seconds=0.0))
    assert simulation.run() == GOOD and simulation.now == 6.0
    nested = Program(one, 1.0, children=[Program(one, 1.0)])
    assert Simulation(nested).run() == GOOD


def test_a_worker_takes_its_slots_once() -> None:
    """Two workers of two processors each take turns on two, and each has two actions at once."""
    pair = Policy(claim=Claim(Slots(cpu=2.0, actions=1), "team", 2, 2))
    simulation = Simulation(Program(children=[Program(pair, 1.0)] * 4, seconds=0.0))
    assert simulation.run() == GOOD and simulation.now == 2.0
    small = Policy(claim=Claim(Slots(cpu=1.0, actions=1), "team", 2, 2))
    many = Slots(cpu=2.0, actions=9)
    simulation = Simulation(Program(children=[Program(small, 1.0)] * 5, seconds=0.0), many)
    assert simulation.run() == GOOD and simulation.now == 2.0
    assert sorted(simulation.workers.values()) == [0, 1, 1, 1, 2, 2]
    nested = Program(pair, 1.0, children=[Program(pair, 1.0, children=[Program(pair, 1.0)])])
    assert Simulation(nested).run() == GOOD


def test_a_retry_takes_over_what_its_first_attempt_has_got() -> None:
    """The child that succeeded runs once, the one that failed again."""
    good, bad = Program(), Program(outcomes=("fails", "succeeds"))
    root = Program(Policy(retries=1), outcomes=("fails", "succeeds"), children=[good, bad])
    simulation = Simulation(root)
    assert simulation.run() == GOOD
    starts = [line.split("Start")[1] for line in simulation.log if "Start" in line]
    assert sum("a0.0" in line for line in starts) == 1
    assert sum("a0.1" in line for line in starts) == 2


def test_a_retry_does_not_wait_for_slots_that_its_children_hold() -> None:
    """An attempt that was lost has left a child on all processors; the next one begins at once."""
    wide = Policy(claim=Claim(Slots(cpu=2.0, actions=1)))
    root = Program(Policy(), outcomes=("succeeds",), children=[Program(wide, 9.0)])
    simulation = Simulation(root)
    simulation.at(1.0, "lose", "a0")
    assert simulation.run() == GOOD and simulation.now == 10.0
    starts = [line for line in simulation.log if "Start(action='a0'" in line]
    assert [line.split()[0] for line in starts] == ["0", "1"]


def test_what_is_lost_has_its_own_budget() -> None:
    """It uses up no retries."""
    root = Program(Policy(retries=1, lost_retries=2), outcomes=("is lost", "fails", "is lost"))
    result = Simulation(root).run()
    assert result.error is not None and result.error.kind == "lost"
    root = Program(Policy(lost_retries=2), outcomes=("is lost", "is lost", "succeeds"))
    assert Simulation(root).run() == GOOD


def test_an_attempt_that_ignores_signals_is_killed() -> None:
    """After its timeout, and the time it has to end."""
    simulation = Simulation(Program(Policy(max_runtime=1.0), outcomes=("ignores signals",)))
    result = simulation.run()
    assert result.phase == "timed_out" and simulation.now == pytest.approx(6.1)


def test_a_parent_that_ends_aborts_what_it_left() -> None:
    """Its own result stands."""
    root = Program(children=[Program(outcomes=("hangs",))], waits=False)
    simulation = Simulation(root)
    assert simulation.run() == GOOD
    assert simulation.results["a0.0"].phase == "aborted"


def test_the_first_reason_to_abort_stands() -> None:
    """A grandchild of an aborted action ends with the reason of the abort."""
    stubborn = Program(outcomes=("ignores signals",))
    simulation = Simulation(Program(children=[Program(children=[stubborn])]))
    simulation.at(0.5, "abort", "a0.0")
    simulation.run()
    for id in ("a0.0", "a0.0.0"):
        error = simulation.results[id].error
        assert error is not None and error.message == "somebody aborted it"
