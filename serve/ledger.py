"""One request as it is recorded and counted: who asks, in which form, since when, and how it ended. No patient text."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import Request

from clinical_reasoner import __version__
from clinical_reasoner.serving.audit import AuditError, AuditRow, Form, Outcome, audit_time
from clinical_reasoner.serving.proxy_guard import REQUEST_ID_HEADER, safe_request_id
from serve.access import Caller
from serve.desk import Desk
from serve.problems import Refused, refuse

_REASONS = {
    400: "malformed",
    403: "model_not_allowed",
    408: "slow_body",
    413: "too_large",
    415: "wrong_kind",
    422: "invalid",
    429: "rate",
    500: "internal_error",
    502: "unreadable_answer",
    503: "no_capacity",
    504: "timeout",
}
"""Of a refusal, by its status, as one word."""


class UnrecordedError(Refused):
    """No record could be written, so that no answer is given."""


@dataclass
class Visit:
    """A request, or an item of a batch."""

    desk: Desk
    caller: Caller
    request_id: str
    form: Form
    item: int | None = None
    """Place in a batch, from 0."""
    started: float = field(default_factory=time.perf_counter)
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: bool = False
    """Whether its end is recorded, or could not be; there is only one."""
    timed_from: float = field(init=False)
    """Since when `serving.request_timeout_s` counts."""

    def __post_init__(self) -> None:
        self.timed_from = self.started

    def restart(self) -> None:
        """The time limit counts from now on: an item of a batch may wait for its place."""
        self.timed_from = time.perf_counter()

    @property
    def spent_s(self) -> float:
        """Of the time limit, seconds."""
        return time.perf_counter() - self.timed_from

    @property
    def left_s(self) -> float:
        """Of the time limit, seconds."""
        return max(0.0, self.desk.limits.request_timeout_s - self.spent_s)

    async def close(self, status: int, outcome: Outcome, **said: Any) -> None:
        """Record and count the end, `said` being further fields of AuditRow. Returns once the record is safe; raises
        UnrecordedError where it cannot be written. Does nothing after the first end."""
        if self.ended:
            return
        seconds = time.perf_counter() - self.started
        row = AuditRow.model_validate(
            {
                "request_id": self.request_id,
                "item": self.item,
                "key_id": self.caller.key_id,
                "time": audit_time(self.time),
                "form": self.form,
                "version": __version__,
                "status": status,
                "outcome": outcome,
                "latency_s": round(seconds, 4),
                **said,
            }
        )
        self.ended = True
        counted = row
        try:
            await self.desk.recorder.record(row)
        except AuditError as error:
            counted = row.model_copy(update={"status": 503, "outcome": "failed"})
            raise UnrecordedError(
                refuse(503, "no answer can be recorded at the moment, so none is given").problem, 5
            ) from error
        finally:
            self._count(counted, seconds)

    async def refused(self, refusal: Refused, outcome: Outcome = "refused", **said: Any) -> None:
        """Record and count a refusal."""
        status = refusal.problem.status
        await self.close(status, outcome, **{"reason": _REASONS.get(status, "refused"), **said})

    def _count(self, row: AuditRow, seconds: float) -> None:
        meters = self.desk.meters
        answered = row.outcome == "answered"
        meters.ended(self.form, row.status, seconds, row.answered_by if answered else None)
        if row.answered_by is None:
            return
        if answered:
            asked = row.model_asked or row.answered_by
            meters.answered(self.form, asked, row.answered_by, degraded=bool(row.degraded), refer=bool(row.refer))
            meters.generated(row.answered_by, "prompt", row.prompt_tokens or 0)
            meters.generated(row.answered_by, "completion", row.output_tokens or 0)


def request_id_of(request: Request) -> str:
    """The id that the proxy gave it; what the client called it only where that is a UUID."""
    return safe_request_id(request.headers.get(REQUEST_ID_HEADER))
