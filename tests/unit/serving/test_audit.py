"""What a record may hold, the keyed hash of the input, and its key."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args, get_origin

import pyarrow as pa
import pytest
from pydantic import BaseModel, ValidationError

from clinical_reasoner.records import to_table
from clinical_reasoner.serving.audit import (
    AUDIT,
    KEY_VARIABLE,
    LONGEST,
    AuditError,
    AuditRow,
    audit_time,
    input_hmac,
    load_audit_key,
)
from clinical_reasoner.serving.schema import DiagnoseRequest
from tests.audit_rows import audit_row

KEY = b"k" * 32


def with_long_texts(model: type[BaseModel], good: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`good` with each of its texts, however deep, replaced by one that is too long."""
    for name, value in good.items():
        field = str(model.model_fields[name].annotation)
        if isinstance(value, str):
            yield name, {**good, name: "a" * (LONGEST + 1)}
        elif isinstance(value, tuple) and isinstance(value[0], str):
            yield name, {**good, name: ("a" * (LONGEST + 1),)}
        elif isinstance(value, tuple):
            yield name, {**good, name: ({**value[0], "label": "a" * (LONGEST + 1)},)}
        else:
            assert "str" not in field, f"{name}: the row of the tests leaves it out"


def texts_of(annotation: Any) -> bool:
    return annotation is str or any(texts_of(one) for one in get_args(annotation) if get_origin(annotation))


def test_no_field_holds_free_text() -> None:
    row = audit_row(item=3, reason="timeout")
    good = row.model_dump()
    assert None not in good.values(), "each field is tried below"
    AuditRow(**good)
    tried = list(with_long_texts(AuditRow, good))
    assert {name for name, field in AuditRow.model_fields.items() if texts_of(field.annotation)} <= {
        name for name, _ in tried
    }
    for name, values in tried:
        with pytest.raises(ValidationError):
            AuditRow(**values)
        assert name in values


@pytest.mark.parametrize(
    "changed",
    [
        {"request_id": "Anna Muster"},
        {"request_id": ""},
        {"routing": "student confident: 0.9"},
        {"reason": "Patient is 74"},
        {"time": "2026-01-31T09:05:00Z"},
        {"time": "2026-01-31T09:05:00.123+01:00"},
        {"latency_s": float("nan")},
        {"status": 42},
        {"rationale": "no such column"},
    ],
)
def test_record_refuses(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        audit_row(**changed)


def test_refusal_before_any_model_is_a_record() -> None:
    row = AuditRow(
        request_id="r",
        time="2026-01-31T09:05:00.123Z",
        form="batch",
        version="1",
        status=401,
        outcome="refused",
        reason="no_key",
    )
    table = to_table([row, audit_row()], AUDIT)
    assert table.schema == AUDIT
    assert table.column("diagnosis").to_pylist() == [None, "AD"]
    assert AUDIT.field("prediction_set").type == pa.list_(pa.string())


def test_time_is_utc_to_the_millisecond() -> None:
    moment = datetime(2026, 2, 1, 0, 30, 5, 7999, tzinfo=timezone(timedelta(hours=2)))
    assert audit_time(moment) == "2026-01-31T22:30:05.007Z"


def test_hash_is_of_the_content_under_the_key() -> None:
    one = DiagnoseRequest(description="Age: 74", model="student")
    assert input_hmac(one, KEY) == input_hmac({"model": "student", "description": "Age: 74", "patient": None}, KEY)
    others = [
        input_hmac(one.model_copy(update={"description": "Age: 75"}), KEY),
        input_hmac(one, b"o" * 32),
        input_hmac(one, KEY, ["scan"]),
        input_hmac(one, KEY, ["sc", "an"]),
    ]
    assert len({input_hmac(one, KEY), *others}) == 5


def test_key_is_made_once_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    file = tmp_path / "run" / "audit_key"
    key = load_audit_key(file)
    assert load_audit_key(file) == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(key) == 64
    assert os.listdir(file.parent) == ["audit_key"]
    monkeypatch.setenv(KEY_VARIABLE, "e" * 40)
    assert load_audit_key(file) == b"e" * 40


def test_bad_key_is_an_error_that_does_not_show_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "audit_key"
    file.write_text("secret\n")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(AuditError, match="fewer than 32 bytes") as raised:
        load_audit_key(file)
    assert "secret" not in str(raised.value)
    with pytest.raises(AuditError, match=KEY_VARIABLE):
        load_audit_key(file / "below_a_file")
