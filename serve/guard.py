"""Around every route: refusals in the form of the route, limits counted once, and no error with the patient in it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from clinical_reasoner.serving.audit import Form
from clinical_reasoner.serving.schema import Problem, parameter_errors
from serve.access import Caller
from serve.desk import Desk
from serve.ledger import UnrecordedError, Visit, request_id_of
from serve.problems import Refused, failure_of, refuse, respond

INVALID = "the request cannot be used; `errors` names each field and what is allowed"
Respond = Callable[[Problem, dict[str, str]], Response]


def guarded_route(desk: Desk, form: Form | None = None, told: Respond = respond) -> type[APIRoute]:
    """The class of the routes of a router, for `APIRouter(route_class=)`.

    `told` makes the response of a problem and its headers. `form`: what a request that the door turned away for its
    rate is recorded as; None records none.
    """

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_guarded(request: Request) -> Response:
                try:
                    return await handle(request)
                except Refused as refusal:
                    failure = await _recorded(refusal, request, desk, form)
                except HTTPException:  # no such page: the app answers it
                    raise
                except RequestValidationError as error:
                    failure = refuse(422, INVALID, errors=parameter_errors(error.errors()))
                except Exception as error:
                    failure = failure_of(error, request_id_of(request))
                if failure.limit is not None:
                    desk.meters.limited(failure.limit)
                return told(failure.problem, failure.headers)

            return handle_guarded

    return GuardedRoute


async def _recorded(refusal: Refused, request: Request, desk: Desk, form: Form | None) -> Refused:
    """What a route refused is recorded there; what the door refused to a known key is recorded here."""
    if refusal.key_id is None or form is None:
        return refusal
    try:
        await Visit(desk, Caller(refusal.key_id, frozenset()), request_id_of(request), form).refused(refusal)
    except UnrecordedError as unrecorded:
        return unrecorded
    return refusal
