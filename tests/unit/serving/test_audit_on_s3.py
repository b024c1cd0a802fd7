"""Rolled files on S3, journals on this machine: what is uploaded, what waits, and what happens when S3 is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clinical_reasoner.config.serving import AuditConfig
from clinical_reasoner.serving.audit import AuditError
from clinical_reasoner.serving.audit_log import MOST_WAITING, open_audit_log
from clinical_reasoner.serving.audit_reading import AuditQuery, find_records
from tests.audit_rows import audit_row
from tests.s3_server import SmallS3, small_s3

RUN = "s3://clinic/runs/demo"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallS3]:
    with small_s3() as server:
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        yield server


def found(config: AuditConfig) -> list[str]:
    return [row.request_id for row in find_records(config, RUN, AuditQuery())]


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_files_go_up_and_are_found_from_another_machine(s3: SmallS3, tmp_path: Path, form: str) -> None:
    config = AuditConfig.model_validate({"journal": str(tmp_path / "journal"), "format": form, "roll_rows": 2})
    log = open_audit_log(config, RUN)
    for name in "abc":
        log.append([audit_row(name)])
    log.roll()
    assert found(config) == ["a", "b", "c"]
    assert found(AuditConfig()) == ["a", "b"], "the third waits in a journal that only this machine has"
    log.close()
    assert found(AuditConfig()) == ["a", "b", "c"]
    names = [name for name, content in s3.objects.items() if content]
    assert len(names) == 2
    assert all(name.startswith("clinic/runs/demo/audit/2") and name.endswith(f".{form}") for name in names)
    assert list((tmp_path / "journal").iterdir()) == []


def test_while_s3_is_away_records_wait_and_then_requests_are_refused(s3: SmallS3, tmp_path: Path) -> None:
    config = AuditConfig(journal=str(tmp_path / "journal"), roll_rows=1)
    log = open_audit_log(config, RUN)
    s3.down = True
    for number in range(MOST_WAITING):
        log.append([audit_row(f"r-{number}")])
        with pytest.raises(AuditError, match=r"s3://clinic/runs/demo/audit: no file can be written: .*ACCESS_DENIED"):
            log.roll()
    with pytest.raises(AuditError, match="files of audit records wait"):
        log.append([audit_row("refused")])
    s3.down = False
    log.roll()
    log.append([audit_row("s")])
    log.close()
    assert found(AuditConfig()) == [*(f"r-{number}" for number in range(MOST_WAITING)), "s"]


def test_endpoint_does_not_start_where_s3_cannot_be_reached(s3: SmallS3, tmp_path: Path) -> None:
    s3.down = True
    with pytest.raises(AuditError, match="s3://clinic/runs/demo/audit"):
        open_audit_log(AuditConfig(journal=str(tmp_path / "journal")), RUN)


def test_journal_left_by_a_crash_goes_up_at_the_next_start(s3: SmallS3, tmp_path: Path) -> None:
    left = tmp_path / "journal/20260131T090500-0123456789ab-00001.jsonl"
    left.parent.mkdir()
    left.write_text(audit_row("left").model_dump_json() + "\n")
    open_audit_log(AuditConfig(journal=str(left.parent)), RUN).close()
    assert found(AuditConfig()) == ["left"]
    assert not left.exists()
