"""A refused upload as problem details."""

from __future__ import annotations

from clinical_reasoner.serving.schema import FieldError
from clinical_reasoner.serving.uploads import UploadError
from serve.problems import Refused, refuse
from serve.telemetry import Limit

RETRY_AFTER_S = 5
"""Reading a scan takes seconds."""
STATUSES = (400, 408, 413, 415, 422, 503, 504)
"""Of an UploadError."""
_DETAILS = {
    400: "the body cannot be read; `errors` says why",
    408: "the body did not arrive in time",
    413: "what was sent is too large; `errors` names the limit",
    415: "what was sent is of a kind that is not taken; `errors` names the field and what is",
    422: "what was sent cannot be used; `errors` names each field and what is wrong",
    503: "scans cannot be read at the moment",
    504: "the scan was not read in the time of a request",
}


def refused(error: UploadError) -> Refused:
    """What to raise for it."""
    errors = [FieldError(field=error.field, message=error.message)]
    detail = _DETAILS.get(error.status, _DETAILS[422])
    retry_after_s = RETRY_AFTER_S if error.status == 503 else None
    limit: Limit | None = "body" if error.status == 413 else None
    return refuse(error.status, detail, errors=errors, retry_after_s=retry_after_s, limit=limit)
