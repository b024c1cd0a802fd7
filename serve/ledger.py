"""One request as it is recorded: who asks, in which form, since when, and how it ended. Nothing of the patient."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from clinical_reasoner import __version__
from clinical_reasoner.serving.audit import AuditError, AuditRow, Form, Outcome
from serve.access import Caller
from serve.desk import Desk
from serve.problems import Refused, refuse


class UnrecordedError(Refused):
    """No record could be written, so that no answer is given."""


@dataclass(frozen=True)
class Visit:
    """A request, or an item of a batch."""

    desk: Desk
    caller: Caller
    request_id: str
    form: Form
    item: int | None = None
    """Place in a batch, from 0."""
    started: float = field(default_factory=time.perf_counter)

    async def close(self, status: int, outcome: Outcome, **said: Any) -> None:
        """Record the end, `said` being further fields of AuditRow. Returns once the record is safe; raises
        UnrecordedError where it cannot be written."""
        seconds = time.perf_counter() - self.started
        row = AuditRow.model_validate(
            {
                "request_id": self.request_id,
                "item": self.item,
                "key_id": self.caller.key_id,
                "form": self.form,
                "version": __version__,
                "status": status,
                "outcome": outcome,
                "latency_s": round(seconds, 4),
                **said,
            }
        )
        self.desk.meters.ended(row)
        try:
            await self.desk.recorder.record(row)
        except AuditError as error:
            unrecorded = refuse(503, "no answer can be recorded at the moment, so none is given")
            raise UnrecordedError(unrecorded.problem, unrecorded.retry_after_s) from error
