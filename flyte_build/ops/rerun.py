"""Running earlier runs again, from the current file or from the stored code of the run.

The original inputs are the defaults.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flyte_build.builtin.script import __name__ as SCRIPT
from flyte_build.cas.digest import Digest
from flyte_build.declarations.interface import Interface, Parameter
from flyte_build.declarations.spec import TaskSpec
from flyte_build.errors import FileUnstable, InputError, NotFound, UsageError
from flyte_build.graph.resolver import Resolver
from flyte_build.images.image_choice import ImageChoice
from flyte_build.runner.action import CONDITION, ROOT
from flyte_build.runner.call import Call
from flyte_build.runner.controller.run import Finished
from flyte_build.runner.history.history import History
from flyte_build.settings.settings import Settings
from flyte_build.values.type import Wires
from flyte_build.workspace.workspace import INTERACTIVE, Workspace, locate

from .environments import PreparedEnvironments
from .prepare import FilePlan
from .run import run_in
from .session import Session

if TYPE_CHECKING:
    from flyte_build.discovery.node import Discovery
    from flyte_build.runner.history.rows import ActionRow
    from flyte_build.runner.worker.spawn import Worker

_SCRIPTS = (SCRIPT, "flyte_build.script")  # The second is how earlier versions recorded it.


class Recorded:
    """Recorded task, inputs and settings of the run `run`, from its `document` in the history.

    `tree` is the digest of its stored code, or "". `deployment` names the deployed task that it
    ran, with its version; it is "" if it ran the task of a file. Raises `NotFound` if the document
    is incomplete.
    """

    is_child = False  # Whether the task is that of an action below the root.

    def __init__(self, run: str, document: Mapping[str, Any], tree: str = "") -> None:
        if "copy_style" not in document:
            raise NotFound(
                f"The record of the run {run} is incomplete",
                why="An older version of flyte-build recorded it.",
            )
        self.run = run
        self.is_script = document["module"] in _SCRIPTS
        self.task: str = document["task"]
        self.variable: str = document["variable"]
        self.inputs: Wires = document["inputs"]
        self.timeout: float | None = document["timeout"]
        self.root: str = document["root"]
        self.deployment: str = document.get("deployment", "")
        self.tree = tree
        self._document = document

    @classmethod
    def find(cls, run: str, history: History, action: str = ROOT) -> Recorded:
        """Find an action of the run of that name.

        Raises `NotFound`, and `UsageError` if it is not the call of a task.
        """
        row = history.get(run)  # Its error for an unknown name suggests a similar one.
        root = cls(run, history.action(run), row.tree)
        found = history.find_action(run, action)
        return root if found.name == ROOT else root._child(found, history.io(run, found.name)[0])

    def _child(self, action: ActionRow, inputs: Wires) -> Recorded:
        """Return an action of the run in place of its root."""
        if action.engine in ("trace", CONDITION):
            raise UsageError(
                f"The action {action.name} of the run {self.run} cannot run alone",
                why=f"It is a {action.engine}, which belongs to the task that calls it.",
                hint=f"Give the action of a task: `flyte get run {self.run}` lists them.",
            )
        child = Recorded(
            self.run, {**self._document, "task": action.task, "inputs": inputs}, self.tree
        )
        child.is_child, child.timeout = True, None
        child.variable = action.task.rpartition(".")[2]
        if self.deployment:
            child.deployment = f"{action.task}:{self._document['version']}"
        return child

    def variable_in(self, discovery: Discovery) -> str:
        """Return what `run_task` calls the task, given the file's discovery.

        Raises `NotFound` if the file's tasks no longer call it.
        """
        module = discovery.workspace.module
        if not self.is_child and self._document["module"] == module:
            return self.variable
        for environment in discovery.findings.reachable:
            for task in environment.tasks.values():
                if task.name == self.task and task.variable:
                    return task.variable if task.module == module else task.place
        raise NotFound(
            f"The task {self.task} of the run {self.run} was not found",
            why=f"No environment of {self._document['file']}, or that it depends on, has it.",
            hint="If its environment is still there, add it to depends_on.",
        )

    def settings(self, configured: Settings) -> Settings:
        """Return the original settings; those that are not recorded are as `configured`."""
        document = self._document
        style = document["copy_style"]
        return configured.change(
            project=document["project"],
            domain=document["domain"],
            version=document["version"] if style == "none" else "",
            copy_style=style,
            engine="auto" if document["code"] else "local",
            options=document["options"],
            max_actions=document.get("max_actions"),
            context=document.get("context"),
        )

    def workspace(self) -> Workspace:
        """Return the workspace of the file that the run used.

        Raises `UsageError` if the file no longer exists, and `NotFound` if the task was not defined
        in a file.
        """
        if self._document["file"] == INTERACTIVE:
            raise NotFound(
                f"The task of the run {self.run} is not defined in a Python file",
                why="It was typed interactively, or its file's name does not end with .py.",
            )
        return locate(f"{self.root}/{self._document['file']}", self.root)

    def has_other_code(self, plan: FilePlan) -> bool:
        """Whether the current code differs from that of the run, or is being edited."""
        if not self.tree:
            return False
        with plan.session.cache.preparing():
            try:
                return plan.resolve()[plan.tree].artifact != self.tree
            except FileUnstable:
                return True

    def refuse_recovery(self) -> None:
        """Raise `UsageError` if the results of its children cannot be taken over."""
        if self.is_child:
            raise UsageError(
                "An action that runs alone recovers nothing",
                why="The actions below it are known by all that is above them in their run.",
                hint=f"Recover the whole run: `flyte rerun {self.run} --recover`.",
            )

    def refuse_changed_code(self, plan: FilePlan) -> None:
        """Raise `UsageError` if the current code differs from that of the run."""
        if self.has_other_code(plan):
            raise UsageError(
                f"The code has changed since {self.run}",
                why="Results of the original code would be mixed with those of the current one.",
                hint=(
                    "Use `--as-then` to recover with the original code, or `--force` to use the"
                    " current code anyway."
                ),
            )

    @property
    def spec(self) -> TaskSpec:
        """The task's spec at the time of the run.

        Raises `NotFound` if it was not recorded, and `UsageError` for an action below the root.
        """
        if self.is_child:
            raise UsageError(
                "`--as-then` runs the root of a run, not one of its other actions",
                hint=f"Leave out `--as-then` to run {self.task} of the current file.",
            )
        if not self.tree or "spec" not in self._document:
            raise NotFound(
                f"The run {self.run} has no stored code",
                why=(
                    "An older version of flyte-build recorded it."
                    if self.tree
                    else "It ran from the working tree, as scripts and `--local` do."
                ),
                hint=f"Run the current file instead: `flyte rerun {self.run}`.",
            )
        return TaskSpec.parse(self._document["spec"])

    def run_stored(
        self, session: Session, inputs: Wires, take_spare: Callable[[], Worker | None]
    ) -> Finished:
        """Run the stored code of the run again with wire inputs; its file need not exist any more.

        Its image is built or installed as flyte.lock currently pins it. Raises `NotFound` if the
        code is no longer in the cache.
        """
        from flyte_build.bundler.checkout import extracted
        from flyte_build.images.environments.node import EnvironmentNode

        began, document, spec = time.monotonic(), self._document, self.spec
        image, cache = ImageChoice(spec.semantic.image), session.cache
        call = Call(
            task=spec,
            workspace=Workspace(
                self.root,
                document["file"],
                document["module"],
                tuple(document["roots"]),
                tuple(document["last"]),
            ),
            variable=self.variable,
            inputs=inputs,
            run=session.settings.run._replace(version=document["version"]),
            tree=self.tree,
        )
        plan = FilePlan(session, call.workspace)
        environments = PreparedEnvironments(
            session,
            lambda image, name: EnvironmentNode(
                name, image, self.root, cache, lambda: plan.pins, ()
            ),
            lambda: plan.containers,
            Resolver(cache.records, session.reporter).resolve,
        )
        with cache.preparing():
            code = extracted(cache, Digest(self.tree))
            nodes = environments.choose([(spec.semantic.environment, image)])
            environments.settle(environments.resolve(nodes), [Digest(self.tree)])
        try:
            call = call._replace(code=code)
            return run_in(environments, session, call, plan.image, take_spare, began)
        finally:
            environments.release()

    def interface(self, task: TaskSpec) -> Interface:
        """Return the current interface of the task, with the original inputs as defaults.

        Raises `InputError` if an original input no longer fits.
        """
        now = task.interface
        names = {parameter.name for parameter in now.inputs}
        for name in self.inputs.keys() - names:
            raise InputError(
                f"The input {name!r} of the run {self.run} no longer exists",
                why=f"The task takes {', '.join(sorted(names)) or 'no inputs'}.",
                hint="Use `flyte run` with inputs that the task takes.",
            )
        return Interface(
            [self._with_default(parameter) for parameter in now.inputs], now.outputs, now.doc
        )

    def _with_default(self, parameter: Parameter) -> Parameter:
        if parameter.name not in self.inputs:
            return parameter
        wire = parameter.check(self.inputs[parameter.name])
        text = wire if isinstance(wire, str) and wire else json.dumps(wire, ensure_ascii=False)
        return Parameter(parameter.name, parameter.type, wire, text, parameter.doc)

    def changed(self, task: TaskSpec, given: Wires) -> Wires:
        """Return the original inputs as wire values, with those in `given` replaced.

        `given` holds JSON values by name. Raises `InputError`.
        """
        interface = self.interface(task)
        names = [parameter.name for parameter in interface.inputs]
        for name in given:
            if name not in names:
                raise InputError(
                    f"The input {name!r} does not exist",
                    why=f"The task takes {', '.join(names) or 'no inputs'}.",
                )
        return interface.check_inputs({**self.inputs, **given})

    def forgotten(self, task: TaskSpec, settings: Settings) -> str:
        """Return a note on `-e` variables of the run that a new run would lack, or ""."""
        declared = self._document.get("spec", {}).get("env_vars", {})  # Those of the root.
        known = {*task.semantic.env_vars, *settings.run.env, *declared}
        names = sorted({*self._document["env"]} - known)
        given = f"The run {self.run} set {', '.join(names)} with `-e`"
        return f"{given}; values are not recorded, so pass them again." if names else ""
