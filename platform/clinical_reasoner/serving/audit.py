"""The audit record: what was asked of the endpoint, what it said, and by which version; no patient text.

Texts are names and short words: none is longer than LONGEST characters, and what could hold more than a name has a
pattern. The input is kept as a keyed hash alone (HMAC-SHA-256, RFC 2104), as a bare hash of a few numbers about a
patient could be found by trying them all. The key lies beside the records and not among them: whoever has only the
records can neither guess an input nor tell whether two installations saw the same one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_jsonable_python

from clinical_reasoner.errors import UserError
from clinical_reasoner.records import arrow_schema

LONGEST = 200
"""Characters of the longest text in a record."""
KEY_FILE = "audit_key"
KEY_VARIABLE = "CLINICAL_REASONER_AUDIT_KEY"
FEWEST_KEY_BYTES = 32

_REQUEST_ID = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
_WORD = r"^[a-z0-9][a-z0-9_]{0,63}$"
_TIME = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$"
_HASH = r"^[0-9a-f]{64}$"
_Name = Annotated[str, Field(max_length=LONGEST)]

Form = Literal["diagnose", "stream", "batch", "fhir", "chat", "slices"]
Outcome = Literal["answered", "refused", "failed", "cancelled"]


class AuditError(UserError):
    """A record cannot be written or read; the message names the place and the fix, and nothing of the record."""


class LabelProbability(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(max_length=LONGEST)
    """A label name of the task."""
    probability: float = Field(ge=0, le=1, allow_inf_nan=False)
    """0 to 1."""


class AuditRow(BaseModel):
    """One request, or one patient of a batch. None is what was not reached, or does not apply."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_id: str = Field(pattern=_REQUEST_ID)
    """As in the answer and in the header `x-request-id`. A client may give its own, a UUID, so that only `request_id`,
    `key_id` and `time` together tell requests apart."""
    item: int | None = Field(default=None, ge=0)
    """Place in a batch, from 0; None outside of batches."""
    key_id: str | None = Field(default=None, max_length=LONGEST)
    """Name of the API key; `anonymous` where the endpoint has no keys."""
    time: str = Field(pattern=_TIME)
    """When the request came: ISO 8601, UTC, milliseconds, e.g. `2026-01-31T09:05:00.123Z`; see `audit_time`."""
    form: Form
    """How it was asked."""
    input_hmac: str | None = Field(default=None, pattern=_HASH)
    """Keyed hash of the validated request and of the files sent with it, 64 hexadecimal digits; see `input_hmac`. None:
    no valid request."""
    model_asked: Literal["auto", "student", "teacher"] | None = None
    """Whom the client asked."""
    answered_by: Literal["student", "teacher"] | None = None
    """Who answered."""
    routing: str | None = Field(default=None, pattern=_WORD)
    """Why, as one word, e.g. `student_confident`, `student_unsure`, `student_unavailable`, `asked_for`."""
    degraded: bool | None = None
    """Whether the answer stood in for the teacher's, which could not be had."""
    refer: bool | None = None
    """Whether the answer said to refer to a clinician."""
    diagnosis: str | None = Field(default=None, max_length=LONGEST)
    """A label name of the task."""
    probabilities: tuple[LabelProbability, ...] | None = None
    """Of each label, as answered."""
    prediction_set: tuple[_Name, ...] | None = None
    """Label names of the conformal prediction set."""
    model: str | None = Field(default=None, max_length=LONGEST)
    """Name of the model that answered."""
    model_fingerprint: str | None = Field(default=None, max_length=LONGEST)
    """Of its files, or its hub name; see `stages.model_fingerprint`."""
    prompt_version: str | None = Field(default=None, max_length=LONGEST)
    operating_point: str | None = Field(default=None, max_length=LONGEST)
    """Version of the operating point; None without one."""
    version: str = Field(max_length=LONGEST)
    """Of this software."""
    latency_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """From the request's arrival to this record, seconds."""
    status: int = Field(ge=100, le=599)
    """HTTP status of the answer, or of this patient in a batch."""
    outcome: Outcome
    """`refused`: not worked on, as with an invalid body or beyond the rate of a key (requests without a valid key have
    no record); `cancelled`: the client went away."""
    reason: str | None = Field(default=None, pattern=_WORD)
    """Why it was not answered, as one word, e.g. `invalid`, `no_capacity`, `timeout`."""
    prompt_tokens: int | None = Field(default=None, ge=0)
    """Tokens read, of all models that were asked."""
    output_tokens: int | None = Field(default=None, ge=0)
    """Tokens written, of all models that were asked."""


AUDIT = arrow_schema(AuditRow)


def audit_time(moment: datetime) -> str:
    """A moment with a time zone, as the records have it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def input_hmac(request: BaseModel | Mapping[str, Any], key: bytes, files: Iterable[str] = ()) -> str:
    """64 hexadecimal digits: HMAC-SHA-256 of the request as canonical JSON (sorted keys, no blanks, defaults written
    out) and of `files`, the digests of what was sent with it, in their order."""
    content = to_jsonable_python(request)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for part in (text, *(file.encode() for file in files)):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def load_audit_key(file: Path) -> bytes:
    """The key of `input_hmac`: KEY_VARIABLE where it is set, else the file, which is made once, for its owner alone.

    Replicas that share the folder share the file; those that do not need the variable to have the same key. Raises
    AuditError, without the key, where it is short or the file can be neither read nor made.
    """
    given = os.environ.get(KEY_VARIABLE, "").strip().encode()
    place = f"environment variable {KEY_VARIABLE}" if given else f"key file {file}"
    try:
        key = given or _kept_key(file)
    except OSError as error:
        raise AuditError(f"{place}: {type(error).__name__}; set {KEY_VARIABLE} to `openssl rand -hex 32`") from error
    if len(key) < FEWEST_KEY_BYTES:
        raise AuditError(f"{place}: fewer than {FEWEST_KEY_BYTES} bytes; write one with `openssl rand -hex 32`")
    return key


def _kept_key(file: Path) -> bytes:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{uuid4().hex}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(secrets.token_hex(32).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
            with suppress(FileExistsError):  # of two replicas that start together one makes it, whole
                os.link(temporary, file)
        finally:
            temporary.unlink()
    return file.read_bytes().strip()
