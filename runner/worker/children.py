"""Calls of tasks inside a task: each is a child action, which the controller carries out."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any
from weakref import WeakKeyDictionary

from flyte_build.declarations.call import awaited
from flyte_build.declarations.context import Memory, Pending, ctx
from flyte_build.declarations.describe import task_spec, variable_of
from flyte_build.declarations.interface import Interface, interface_of
from flyte_build.declarations.spec import TaskSpec, completed
from flyte_build.declarations.task import Task
from flyte_build.errors import InlineIOMaxBytesBreached, UsageError
from flyte_build.runner.child import INLINE, inline_error, next_child_id
from flyte_build.runner.result import Result
from flyte_build.runner.traces import trace_of
from flyte_build.values.type import Wires

from .client import Client, Refused
from .preloads import imported
from .raised import error_of, refusal_of


class Children:
    """Caller of tasks for an attempt of an action; `root` is the directory of its code."""

    def __init__(self, client: Client, action: str, attempt: int, root: str) -> None:
        self._client, self._action, self._attempt, self._root = client, action, attempt, root
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._described: WeakKeyDictionary[Task[..., Any], tuple[Mapping[str, Any], Interface]] = (
            WeakKeyDictionary()
        )  # A task may be overridden for each call.

    def call(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a task as a child action, and return its result, or a coroutine of it if async.

        Raises the error of the child.
        """
        pending = self.start(task, args, kwargs)
        return awaited(pending) if task.is_async else pending.result()

    def start(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pending:
        """Begin a call of a task as a child action."""
        document, interface = self._describe(task)
        inputs = completed(document["interface"], interface.dump_inputs(args, kwargs))
        id, future = self._submit(task.name, document, inputs)
        return _Child(self._client, id, task.name, future, interface.load_result)

    def deployed(self, text: str, project: str, domain: str) -> _Deployed:
        """Return the deployed task that a reference names. Raises `NotFound`."""
        return _Deployed(self, self._client.find_deployed(text, project, domain))

    def start_deployed(self, deployment: str, spec: TaskSpec, inputs: Wires) -> Pending:
        """Begin a call of a deployed task, named with its pin, as a child action."""
        document = spec.document()
        inputs = completed(document["interface"], inputs)
        id, future = self._submit(deployment, document, inputs, deployment)
        return _Child(self._client, id, spec.name, future, dict)

    def close(self) -> None:
        """Call nothing any more."""
        self._client.close()

    def recall(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Memory | None:
        """Return the memory of a traced call."""
        with self._lock:
            return trace_of(self._action, function, (args, kwargs), self._calls, self._client)

    def _submit(
        self, name: str, document: Mapping[str, Any], inputs: Wires, deployment: str = ""
    ) -> tuple[str, Future[Result]]:
        limit = document["options"].get("max_inline_io_bytes", INLINE)
        if (size := len(json.dumps(dict(inputs)))) > limit:
            raise InlineIOMaxBytesBreached(inline_error(document["name"], "inputs", size, limit))
        with self._lock:
            id, occurrence = next_child_id(self._action, name, inputs, self._calls)
        context = ctx()
        request = {
            "id": id,
            "parent": self._action,
            "attempt": self._attempt,
            "task": document,
            "inputs": dict(inputs),
            "deployment": deployment,
            "group": context.group_data.name if context.group_data else "",
            "context": dict(context.custom_context or {}),
            "occurrence": occurrence,
            "packages": imported(),
        }
        return id, self._client.submit(request)

    def _describe(self, task: Task[..., Any]) -> tuple[Mapping[str, Any], Interface]:
        """Return the document of a task's spec, and its interface."""
        known = self._described.get(task)
        if known is None:
            place = {"module": task.func.__module__, "variable": _variable(task)}
            document = {**task_spec(task, self._root, docs=False).document(), **place}
            known = self._described[task] = (document, interface_of(task.func))
        return known


def _variable(task: Task[..., Any]) -> str:
    """Return the variable of its module that holds a task. Raises `UsageError` if there is none."""
    if (variable := variable_of(task)) is not None:
        return variable
    raise UsageError(
        f"The task {task.name} cannot be called from another task",
        why=(
            f"No variable of the module {task.func.__module__} holds it: it was declared inside a"
            " function."
        ),
        hint="Declare it at the top level of its module, or run with `--local`.",
    )


class _Deployed:
    """The deployed task that a document describes."""

    def __init__(self, children: Children, document: Mapping[str, Any]) -> None:
        self._children, self.document = children, document

    def start(self, spec: TaskSpec, inputs: Wires) -> Pending:
        """Call the task."""
        deployment = f"{self.document['name']}@{self.document['digest']}"
        return self._children.start_deployed(deployment, spec, inputs)


class _Child:
    """A call of a task as the child action `id`."""

    def __init__(
        self,
        client: Client,
        id: str,
        task: str,
        future: Future[Result],
        load: Callable[[dict[str, Any]], Any],
    ) -> None:
        self._client, self._id, self._task = client, id, task
        self.future, self._load = future, load

    def result(self) -> Any:
        """Wait for the child, and return what it has returned. Raises its error."""
        try:
            result = self.future.result()
        except Refused as refused:
            raise refusal_of(refused.problem) from None
        if result.error is not None:
            raise error_of(self._task, self._id, result)
        return self._load(dict(result.outputs))

    def cancel(self, reason: str) -> None:
        """Abort the child."""
        self._client.abort(self._id, reason)
