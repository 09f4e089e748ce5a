"""HTTP API of a controller for the workers of its run.

One request submits many children; the ends of children come as answers to a long poll.
"""

from __future__ import annotations

import asyncio
import hmac
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from flyte_build.declarations.spec import TaskSpec
from flyte_build.errors import FlyteError, RuntimeSystemError
from flyte_build.runner.child import ChildRequest
from flyte_build.runner.history.actions import NewAction
from flyte_build.runner.result import Result

from .machine import Ended
from .placed import Answer, Ending, answer, refused
from .placing import Placing

if TYPE_CHECKING:
    from .controller import Controller

_LONGEST = 60.0  # Seconds that a request may wait.
_MOST = 500  # Children in one request.


class WorkerApi:
    """Routes of the API for the run `run`, whose workers know `token`."""

    def __init__(self, controller: Controller, run: str, token: str) -> None:
        self._controller, self._run, self._token = controller, run, token
        self._placing = Placing(controller)
        self._tasks: dict[str, tuple[Any, TaskSpec]] = {}  # Of the last call of each name.

    def application(self) -> Starlette:
        """Return the ASGI application."""

        async def gone(request: Request, error: Exception) -> Response:
            return _problem(410, "gone", "The run has ended.")

        async def failed(request: Request, error: Exception) -> Response:
            return _problem(500, "internal", f"{type(error).__name__}: {error}")

        actions = [
            Route("/", self.submit, methods=["POST"]),
            Route("/{action}/events", self.events, methods=["GET"]),
            Route("/{action}/abort", self.abort, methods=["POST"]),
            Route("/{action}/traces/{id}", self.find_trace, methods=["GET"]),
            Route("/{action}/traces/{id}", self.save_trace, methods=["PUT"]),
        ]
        task = "/api/v1/projects/{project}/domains/{domain}/tasks/{name}/versions/{version}"
        routes = [
            Mount("/api/v1/runs/{run}/actions", routes=actions),
            Route(task, self.deployed, methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers={Ended: gone, Exception: failed})

    async def submit(self, request: Request) -> Response:
        """Submit children; the answers, in their order, hold the results of those that ended."""
        if refusal := self._refusal(request):
            return refusal
        documents = await request.json()
        if not isinstance(documents, list) or len(documents) > _MOST:
            return _problem(400, "invalid", f"Send a list of at most {_MOST} calls.")
        calls = [self._parse(each) for each in documents]
        valid = [call for call in calls if isinstance(call, ChildRequest)]
        answers = await self._placing.begin(valid)
        return JSONResponse(
            [answers.get(call.id, {}) if isinstance(call, ChildRequest) else call for call in calls]
        )

    async def deployed(self, request: Request) -> Response:
        """Return the document of a deployed task."""
        if refusal := self._refusal(request):
            return refusal
        project, domain, name, version = (
            request.path_params[each] for each in ("project", "domain", "name", "version")
        )
        text = f"{name}{'@' if version.startswith('sha256:') else ':'}{version}"
        find = partial(self._controller.deployed, text, project, domain)
        try:
            return JSONResponse(await self._placing.in_thread(find))
        except FlyteError as error:
            return JSONResponse(refused(error))

    async def events(self, request: Request) -> Response:
        """Return the ends of an action's children after number `since`; wait for one if asked."""
        if refusal := self._refusal(request):
            return refusal
        action = request.path_params["action"]
        since = int(request.query_params.get("since", 0))
        wait = min(_LONGEST, float(request.query_params.get("wait", 0)))

        try:
            future = await self._ask(lambda: self._controller.endings(action, since))
        except KeyError:
            return _problem(404, "not-found", f"There is no action {action}.")
        try:
            endings: list[Ending] = await asyncio.wait_for(asyncio.wrap_future(future), wait)
        except TimeoutError:
            endings = []
        return JSONResponse([{"number": number, "id": id, **told} for number, id, told in endings])

    async def abort(self, request: Request) -> Response:
        """Abort a child."""
        if refusal := self._refusal(request):
            return refusal
        action, reason = request.path_params["action"], (await request.json())["reason"]
        if self._placing.drop(action):
            return Response(status_code=202)
        try:
            await self._ask(lambda: self._controller.abort(action, str(reason)))
        except KeyError:
            return _problem(404, "not-found", f"There is no action {action}.")
        return Response(status_code=202)

    async def find_trace(self, request: Request) -> Response:
        """Return the result of a traced call, or nothing."""
        if refusal := self._refusal(request):
            return refusal
        id = request.path_params["id"]
        result = await self._ask(lambda: self._controller.journal.find_trace(id))
        return Response(status_code=204) if result is None else JSONResponse(answer(result))

    async def save_trace(self, request: Request) -> Response:
        """Record the result of a traced call."""
        if refusal := self._refusal(request):
            return refusal
        action, id = request.path_params["action"], request.path_params["id"]
        document = await request.json()
        try:
            result = Result.parse(document["phase"], document)
            name, inputs = str(document["name"]), dict(document["inputs"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return _problem(400, "invalid", str(error))
        trace = NewAction(id, action, name, "", "trace", inputs)
        await self._ask(lambda: self._controller.journal.save_trace(trace, result))
        return Response(status_code=201)

    def _parse(self, document: Any) -> ChildRequest | Answer:
        """Return the call that a JSON value describes, or the answer why it is none."""
        try:
            task = self._task(document["task"])
            return ChildRequest.parse(document["id"], document, task)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return refused(RuntimeSystemError("RuntimeSystemError", f"Invalid call: {error}"))

    def _task(self, document: Any) -> TaskSpec:
        """Return the spec in a JSON value: the same one for calls of the same task."""
        known = self._tasks.get(document["name"])
        if known is None or known[0] != document:
            known = self._tasks[document["name"]] = document, TaskSpec.parse(document)
        return known[1]

    async def _ask(self, request: Any) -> Any:
        return await asyncio.wrap_future(self._controller.inbox.ask(request))

    def _refusal(self, request: Request) -> Response | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            refusal = _problem(401, "unauthorized", "The token of the run is missing or wrong.")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal
        if request.path_params.get("run", self._run) != self._run:
            return _problem(404, "not-found", f"There is no run {request.path_params['run']} here.")
        return None


def _problem(status: int, kind: str, detail: str) -> Response:
    """Return an error in the form of RFC 9457."""
    document = {"type": f"/problems/{kind}", "status": status, "title": kind, "detail": detail}
    return JSONResponse(document, status, media_type="application/problem+json")
