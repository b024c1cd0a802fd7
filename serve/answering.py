"""From a validated request to its answer: place, deadline, cascade, record, the same for every form."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from clinical_reasoner.serving.audit import LabelProbability
from clinical_reasoner.serving.case import Case, read_case
from clinical_reasoner.serving.diagnosis import Conversation, diagnose
from clinical_reasoner.serving.events import Answered, Event
from clinical_reasoner.serving.panel import ModelUnavailableError, Panel
from clinical_reasoner.serving.schema import DiagnoseRequest, DiagnoseResponse, FieldError
from clinical_reasoner.serving.uploads import Upload
from serve.desk import Desk
from serve.ledger import UnrecordedError, Visit
from serve.problems import Refused, refuse

LOG = logging.getLogger("ray.serve")
CLIENT_CLOSED = 499
"""Status in the record where the client went away, as nginx has it."""
_FAILURES = {422: "prompt_too_long", 502: "unreadable", 503: "unavailable", 504: "timeout"}


async def answer(visit: Visit, body: DiagnoseRequest, upload: Upload | None = None) -> DiagnoseResponse:
    """The whole answer. Raises Refused."""
    async with aclosing(events(visit, body, upload)) as steps:
        async for event in steps:
            if isinstance(event, Answered):
                return event.response
    raise AssertionError("events() ends with Answered, or raises")


async def events(visit: Visit, body: DiagnoseRequest, upload: Upload | None = None) -> AsyncGenerator[Event]:
    """What happens on the way to the answer; `Answered` comes last, and only once it is recorded. Raises Refused. Every
    end is recorded, that of a request whose client went away too."""
    desk, panel = visit.desk, visit.desk.panel
    files = upload.digests if upload else ()
    said: dict[str, Any] = {"model_asked": body.model, "input_hmac": desk.input_hmac(body, files)}
    async with recorded(visit, said):
        desk.door.require_model(visit.caller, body.model)
        async with place(desk, waits=visit.form == "batch"):
            talk = Conversation(
                case=_case(body, upload, desk),
                panel=panel,
                engines=desk.engines,
                request_id=visit.request_id,
                limit_s=desk.limits.request_timeout_s,
                piecewise=visit.form == "stream",
            )
            try:
                async with aclosing(diagnose(body.model, talk)) as steps:
                    async for event in steps:
                        if isinstance(event, Answered):
                            _count_unavailable(talk, desk)
                            await visit.close(200, "answered", **said, **_content(event, panel))
                        yield event
            except ModelUnavailableError as error:
                _count_unavailable(talk, desk)
                raise _unavailable(error, body) from error


@asynccontextmanager
async def recorded(visit: Visit, said: dict[str, Any]) -> AsyncIterator[None]:
    """Every end but a good answer, which is recorded where its content is known, is recorded here; what is no refusal
    becomes one. `said`: further fields of the record."""
    with visit.desk.meters.working(visit.form):
        try:
            yield
        except UnrecordedError:
            raise
        except Refused as refusal:
            cause = refusal.__cause__
            if isinstance(cause, ModelUnavailableError):
                reason = f"{cause.role}_{_FAILURES.get(cause.status, 'failed')}"
                await visit.refused(refusal, "failed", **said, reason=reason)
            else:
                await visit.refused(refusal, **said)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if not visit.ended:
                await asyncio.shield(visit.close(CLIENT_CLOSED, "cancelled", **said))
            raise
        except Exception as error:
            # Its message may hold the patient, and Ray Serve would log it: only its class goes out of here.
            LOG.error("request %s failed: %s", visit.request_id, type(error).__name__)
            failure = refuse(500, "the request failed; the log has the kind of error")
            await visit.refused(failure, "failed", **said)
            raise failure from None


@asynccontextmanager
async def place(desk: Desk, *, waits: bool = False) -> AsyncIterator[None]:
    """One of the places of patients in work. Raises Refused (503) where none is free, unless it `waits`."""
    if desk.places.locked() and not waits:
        raise refuse(503, "too many requests are in work", retry_after_s=1)
    async with desk.places:
        yield


def _case(body: DiagnoseRequest, upload: Upload | None, desk: Desk) -> Case:
    if upload is None:
        return read_case(body, desk.panel.task)
    return read_case(body, desk.panel.task, picture=upload.picture, grades=upload.grades, warnings=upload.warnings)


def _content(event: Answered, panel: Panel) -> dict[str, Any]:
    """Of the record: what was said, and by which version."""
    response = event.response
    said = response.probabilities
    return {
        "answered_by": response.answered_by,
        "routing": event.code,
        "degraded": response.degraded,
        "refer": response.refer,
        "diagnosis": response.diagnosis,
        "probabilities": tuple(LabelProbability(label=name, probability=p) for name, p in said.items())
        if said
        else None,
        "prediction_set": response.prediction_set,
        "model": response.model,
        "model_fingerprint": panel.role(response.answered_by).fingerprint or None,
        "prompt_version": response.prompt_version,
        "operating_point": response.operating_point,
        "prompt_tokens": event.prompt_tokens,
        "output_tokens": event.output_tokens,
    }


def _count_unavailable(talk: Conversation, desk: Desk) -> None:
    for name, attempt in talk.attempts.items():
        if isinstance(attempt, ModelUnavailableError):
            desk.meters.unavailable(name, attempt.status)


def _unavailable(error: ModelUnavailableError, body: DiagnoseRequest) -> Refused:
    field = "patient" if body.patient else "description"
    errors = [FieldError(field=field, message=error.reason)] if error.status == 422 else []
    retry_after_s = 1 if error.status in (429, 503) else None
    return refuse(error.status, f"{error.role}: {error.reason}", errors=errors, retry_after_s=retry_after_s)
