"""Finding records: by request, key and time, in any format, while files are being made, and saying what they hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinical_reasoner.config.serving import AuditConfig
from clinical_reasoner.serving import audit_reading
from clinical_reasoner.serving.audit import AUDIT, AuditError, AuditRow
from clinical_reasoner.serving.audit_files import audit_places, journals
from clinical_reasoner.serving.audit_log import open_audit_log
from clinical_reasoner.serving.audit_reading import AuditQuery, as_json, as_lines, find_records, make_query
from tests.audit_rows import audit_row

CONFIG = AuditConfig()


def ids(run: Path, config: AuditConfig = CONFIG, **query: Any) -> list[str]:
    return [row.request_id for row in find_records(config, str(run), AuditQuery(**query))]


def write(run: Path, *rows: AuditRow, **config: Any) -> None:
    log = open_audit_log(AuditConfig(**config), str(run))
    for row in rows:
        log.append([row])
    log.close()


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A Parquet file, a JSONL file and an open journal."""
    write(tmp_path, audit_row("b", time="2026-01-31T10:00:00.000Z"), audit_row("a", key_id="other"))
    write(
        tmp_path,
        audit_row("batch", item=1),
        audit_row("batch", item=0),
        audit_row("no-key", key_id=None),
        format="jsonl",
    )
    log = open_audit_log(AuditConfig(), str(tmp_path))
    log.append([audit_row("open", time="2026-01-31T11:00:00.000Z")])
    return tmp_path


def test_finds_by_request_key_and_time_in_order(mixed: Path) -> None:
    assert ids(mixed) == ["a", "batch", "batch", "no-key", "b", "open"]
    assert ids(mixed, request_id="b") == ["b"]
    assert ids(mixed, request_id="open") == ["open"]
    assert ids(mixed, request_id="c") == []
    assert ids(mixed, key_id="other") == ["a"]
    batch = list(find_records(CONFIG, str(mixed), AuditQuery(request_id="batch")))
    assert [row.item for row in batch] == [0, 1]


def test_all_records_of_an_id_are_found_and_told_apart_by_their_keys(tmp_path: Path) -> None:
    given = "0f8fad5b-d9cb-469f-a165-70867728950e"
    write(tmp_path, audit_row(given, key_id="one"), audit_row(given, key_id="two"))
    found = list(find_records(CONFIG, str(tmp_path), make_query(given.upper(), None, None, None)))
    assert [as_lines(row).splitlines()[0].rpartition(", ")[2] for row in found] == ["key one", "key two"]


def test_record_comes_back_as_it_was_written(mixed: Path) -> None:
    for request_id in ("a", "no-key", "open"):
        (row,) = find_records(CONFIG, str(mixed), AuditQuery(request_id=request_id))
        assert row == audit_row(request_id, **{n: getattr(row, n) for n in ("key_id", "time")})
        assert json.loads(as_json(row))["probabilities"][2] == {"label": "AD", "probability": 0.7}


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("2026-01-31T10", None, ["b", "c", "d"]),
        ("2026-01-31T10:00:00.001Z", None, ["c", "d"]),
        (None, "2026-01-31T10:00:00.000", ["a"]),
        (None, "2026-01-31T10:00:00.001", ["a", "b"]),
        ("2026-02-01", "2026-02-01T12", ["c"]),
        ("2026-02-02", None, []),
        (None, "2026-01-31", []),
    ],
)
def test_time_of_a_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: str | None, until: str | None, expected: list[str]
) -> None:
    class Clock(datetime):
        moment = ""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromisoformat(cls.moment).astimezone(UTC)

    monkeypatch.setattr("clinical_reasoner.serving.audit_log.datetime", Clock)
    times = {"a": "31T09:59:59.999Z", "b": "31T10:00:00.000Z", "c": "01T11:00:00.000Z", "d": "01T12:00:00.000Z"}
    log = open_audit_log(AuditConfig(), str(tmp_path))
    for name, text in times.items():
        Clock.moment = f"2026-{'01' if text.startswith('31') else '02'}-{text}"
        log.append([audit_row(name, time=Clock.moment)])
    assert ids(tmp_path, since=since, until=until) == expected, "from journals"
    log.close()
    assert ids(tmp_path, since=since, until=until) == expected, "from files"


def test_only_folders_of_the_time_are_read(tmp_path: Path) -> None:
    write(tmp_path, audit_row("a"))
    other = tmp_path / "audit/2026-01-15"
    other.mkdir()
    (other / "090500-0123456789ab-00001.parquet").write_bytes(b"no Parquet")
    assert ids(tmp_path, since="2026-01-16") == ["a"]
    with pytest.raises(AuditError, match="cannot be read"):
        ids(tmp_path, since="2026-01-15")


def test_journal_that_becomes_a_file_while_we_look_is_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_audit_log(AuditConfig(roll_rows=1), str(tmp_path))
    log.append([audit_row("a")])
    log.append([audit_row("b")])
    rolled_files = audit_reading._rolled_files

    def roll_after_listing(folder: Path) -> list[Path]:
        found = journals(folder)
        log.roll()
        return found

    def roll_before_listing(*arguments: Any) -> dict[str, list[str]]:
        log.roll()
        return rolled_files(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(audit_reading, "journals", roll_after_listing)
        assert ids(tmp_path) == ["a", "b"]
    log.append([audit_row("c")])
    with monkeypatch.context() as patched:
        patched.setattr(audit_reading, "_rolled_files", roll_before_listing)
        assert ids(tmp_path) == ["a", "b", "c"]
    log.close()


def test_files_that_others_put_there_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, audit_row("a"))
    (day,) = (tmp_path / "audit").glob("????-*")
    (day / ".090500-0123456789ab-00001.parquet.tmp").write_bytes(b"half")
    (day / "notes.txt").write_text("")
    (tmp_path / "audit/journal/notes.jsonl").write_text("{}\n")
    (tmp_path / "audit/old").mkdir()
    assert ids(tmp_path) == ["a"]


def test_file_of_an_older_version_has_no_value_in_new_columns(tmp_path: Path) -> None:
    folder = tmp_path / "audit/2026-01-31"
    folder.mkdir(parents=True)
    old = pa.Table.from_pylist([audit_row("old").model_dump()], schema=AUDIT).drop_columns(["refer", "item"])
    pq.write_table(old.append_column("gone", pa.array(["x"])), folder / "090500-0123456789ab-00001.parquet")
    write(tmp_path, audit_row("new"))
    (row,) = find_records(CONFIG, str(tmp_path), AuditQuery(request_id="old"))
    assert row == audit_row("old", refer=None)


def test_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no such folder"):
        ids(tmp_path)


def test_places() -> None:
    local = audit_places(AuditConfig(), "/runs/demo/")
    assert (local.path, str(local.journal), str(local.key_file)) == (
        "/runs/demo/audit",
        "/runs/demo/audit/journal",
        "/runs/demo/audit_key",
    )
    remote = audit_places(AuditConfig(path="s3://bucket/audit/"), "/runs/demo")
    assert (remote.path, remote.journal, remote.key_file) == ("s3://bucket/audit", None, None)
    remote = audit_places(AuditConfig(journal="/var/lib/clinic/journal"), "s3://bucket/demo")
    assert (remote.path, str(remote.journal), str(remote.key_file)) == (
        "s3://bucket/demo/audit",
        "/var/lib/clinic/journal",
        "/var/lib/clinic/audit_key",
    )


@pytest.mark.parametrize("moment", ["yesterday", "2026-13-01", "2026-01-31 09:00", "2026-01-31T09:00+01:00", ""])
def test_time_that_is_none_is_an_error(moment: str) -> None:
    with pytest.raises(AuditError, match="write a time in UTC"):
        make_query(None, None, moment, None)


def test_lines_say_what_was_said_and_by_which_version() -> None:
    row = audit_row(item=2, answered_by="teacher", routing="student_unsure", degraded=True, refer=True)
    assert as_lines(row).splitlines() == [
        "request r-1, item 2: 2026-01-31T09:05:00.123Z, diagnose, key clinic",
        "  outcome: answered, status 200, 0.412 s",
        "  said: AD; NC 0.100, MCI 0.200, AD 0.700; prediction set {AD, MCI}; refer to a clinician",
        "  by: teacher, model rationale_then_label (asked: auto, student_unsure, degraded)",
        f"  version: software 0.7.0, prompt diagnose-3, operating point 0123456789ab, model files {'f1' * 32}",
        f"  tokens: 212 read, 140 written; input {'0a' * 32}",
    ]
    refused = AuditRow(
        request_id="r",
        time="2026-01-31T09:05:00.123Z",
        form="diagnose",
        version="1",
        status=503,
        outcome="refused",
        reason="no_places",
    )
    assert as_lines(refused).splitlines()[1:4] == [
        "  outcome: refused (no_places), status 503",
        "  said: no diagnosis",
        "  by: no model (asked: none)",
    ]
