"""Run folder: what is skipped, what is made again, and what survives a kill."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from clinical_reasoner import __version__, runs
from clinical_reasoner.manifests import identity
from clinical_reasoner.runs import Manifest, RunError, RunFolder
from clinical_reasoner.storage import JOB_VARIABLE, filesystem

SETTINGS: dict[str, Any] = {"cohort": {"size": 100, "kind": "synthetic"}, "seed": 1}
TABLE = pa.table({"patient_id": ["p1", "p2"], "age_years": [70.0, None]})


def finish(run: RunFolder, stage: str = "patients", **changes: Any) -> Manifest:
    arguments: dict[str, Any] = {
        "settings": SETTINGS,
        "inputs": {},
        "rows_in": 3,
        "rows_out": 2,
        "rows_rejected": 1,
        "seconds": 0.5,
    }
    return run.finish(stage, **(arguments | changes))


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_finished_stage_is_skipped_also_from_a_new_handle(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path / "run"))
    assert run.manifest("patients") is None
    assert not run.finished("patients", SETTINGS, {})
    run.write_table("patients", TABLE)
    written = finish(run, details={"readers": ("oasis",)})
    again = RunFolder(str(tmp_path / "run"))
    assert again.finished("patients", SETTINGS, {})
    assert again.finished("patients", SETTINGS, {}, overwrite=True)
    assert again.read_table("patients").equals(TABLE)
    assert again.manifest("patients") == written
    assert (written.rows_in, written.rows_out, written.rows_rejected) == (3, 2, 1)
    assert written.identity == identity("patients", SETTINGS, {})
    assert written.version == __version__
    assert written.details == {"readers": ["oasis"]}
    assert written.created.endswith("+00:00")


def test_stage_killed_before_its_manifest_is_made_again(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, pyarrow as pa; from clinical_reasoner.runs import RunFolder; "
        "run = RunFolder(sys.argv[1]); "
        "run.write_table('patients', pa.table({'patient_id': ['stale'] * 9})); "
        "run.write_bytes('patients/part-00007.parquet', b'half a file'); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    platform = Path(__file__).parents[2] / "platform"
    environment = os.environ | {"PYTHONPATH": str(platform)}
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert killed.returncode == -9
    assert (tmp_path / "patients" / "part-00007.parquet").exists()
    run = RunFolder(str(tmp_path))
    assert not run.finished("patients", SETTINGS, {})
    run.write_table("patients", TABLE)
    finish(run)
    assert run.finished("patients", SETTINGS, {})
    assert run.read_table("patients").equals(TABLE)
    assert files(tmp_path / "patients") == ["manifest.json", "part-00000.parquet"]


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    run.write_table("patients", TABLE)

    no_parquet_type = pa.table({"span": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(NotImplementedError):
        run.write_table("patients", no_parquet_type)
    assert run.read_table("patients").equals(TABLE)
    run.write_table("patients", TABLE.slice(1))
    assert files(tmp_path / "patients") == ["part-00000.parquet"]


def test_changed_settings_are_named_with_old_and_new_value(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    finish(run, settings=SETTINGS | {"old": None})
    new = {"cohort": {"size": 200, "kind": "synthetic", "sites": ["A"]}, "seed": 1}
    with pytest.raises(RunError) as caught:
        run.finished("patients", new, {})
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: stage 'patients' was made with other settings (")
    for change in ("cohort.size: 100 -> 200", 'cohort.sites: (not set) -> ["A"]', "old: null -> (not set)"):
        assert change in message
    assert "seed" not in message
    assert "kind" not in message
    assert "run.path=" in message
    assert "run.overwrite=true" in message


def test_changed_upstream_stage_is_named(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    finish(run, "findings", inputs={"patients": "1", "slices": "1"})
    with pytest.raises(RunError, match=r"made from other inputs \(changed upstream: 'patients'\);"):
        run.finished("findings", SETTINGS, {"patients": "2", "slices": "1"})
    assert run.finished("findings", SETTINGS, {"patients": "1", "slices": "1"})


def test_overwrite_clears_the_changed_stage_only(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    for stage in ("patients", "students/a", "students/b"):
        run.write_table(stage, TABLE)
        run.write_rejected(stage, TABLE.slice(0, 1))
        run.write_bytes(f"{stage}/checkpoint/weights.bin", b"w")
        finish(run, stage)
    assert not run.finished("students/a", {"seed": 2}, {}, overwrite=True)
    assert not run.exists("students/a")
    assert not run.exists("rejected/students-a.parquet")
    assert run.manifest("students/a") is None
    assert run.finished("students/b", SETTINGS, {})
    assert run.exists("students/b/checkpoint/weights.bin")
    assert run.read_table("patients").equals(TABLE)


def test_unreadable_manifest_is_an_error_until_overwritten(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    run.write_bytes("patients/manifest.json", b'{"stage": "patients"}')
    with pytest.raises(RunError, match=r"patients/manifest\.json.*run\.overwrite=true"):
        run.finished("patients", SETTINGS, {})
    assert not run.finished("patients", SETTINGS, {}, overwrite=True)
    assert not run.exists("patients")


def test_clear_of_a_stage_that_never_ran_does_nothing(tmp_path: Path) -> None:
    RunFolder(str(tmp_path)).clear("patients")
    assert files(tmp_path) == []


def test_write_table_twice_leaves_one_file(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    run.write_bytes("patients/notes.txt", b"kept")
    for _ in range(2):
        run.write_table("patients", TABLE)
    assert files(tmp_path / "patients") == ["notes.txt", "part-00000.parquet"]
    assert run.read_table("patients").equals(TABLE)


def test_read_table_joins_the_parts_of_other_writers(tmp_path: Path) -> None:
    folder = tmp_path / "seed=3" / "patients"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"extra": [1], "age_years": pa.nulls(1), "patient_id": ["p1"]}), folder / "b_0.parquet")
    pq.write_table(pa.table({"extra": [2], "age_years": [70], "patient_id": ["p2"]}), folder / "b_1.parquet")
    run = RunFolder(str(tmp_path / "seed=3"))
    assert run.read_table("patients").column_names == ["extra", "age_years", "patient_id"]
    schema = pa.schema([("patient_id", pa.string()), ("age_years", pa.float64())])
    table = run.read_table("patients", schema)
    assert table.schema.equals(schema)
    assert table.to_pylist() == [{"patient_id": "p1", "age_years": None}, {"patient_id": "p2", "age_years": 70.0}]


def test_read_table_names_what_is_missing(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    with pytest.raises(RunError, match=r"findings: no table; run the job that makes stage 'findings' first"):
        run.read_table("findings")
    run.write_table("findings", TABLE)
    with pytest.raises(RunError, match=r"part-00000\.parquet: no column description, grade;"):
        run.read_table("findings", pa.schema([("grade", pa.string()), ("description", pa.string())]))


@pytest.mark.parametrize("rows", [(3, 2, 0), (3, 3, 1), (0, 1, 0)])
def test_lost_rows_stop_the_manifest(tmp_path: Path, rows: tuple[int, int, int]) -> None:
    run = RunFolder(str(tmp_path))
    with pytest.raises(RunError, match="nothing is dropped in silence"):
        finish(run, rows_in=rows[0], rows_out=rows[1], rows_rejected=rows[2])
    assert files(tmp_path) == []


def test_rejected_rows_are_replaced_and_counted_for_each_stage(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    run.write_rejected("patients", TABLE)
    run.write_rejected("patients", TABLE.slice(0, 1))
    run.write_rejected("students/label_only", TABLE.slice(0, 0))
    assert files(tmp_path) == ["rejected/patients.parquet", "rejected/students-label_only.parquet"]
    assert run.read_table("rejected").num_rows == 1
    finish(run)
    finish(run, "students/label_only", rows_in=2, rows_rejected=0)
    counts = json.loads(run.read_bytes("rejected/manifest.json"))
    assert counts == {"rows_rejected": {"patients": 1, "students/label_only": 0}}


def test_compressed_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    whole = gzip.compress(b"a cube")
    run.write_bytes("cubes/000001.nii.gz", whole)
    assert run.read_bytes("cubes/000001.nii.gz") == whole


def test_bytes_round_trip_and_missing_file(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    run.write_bytes("report/metrics.json", b"1")
    run.write_bytes("report/metrics.json", b"22")
    assert run.read_bytes("report/metrics.json") == b"22"
    assert (run.exists("report/metrics.json"), run.exists("report/other")) == (True, False)
    with pytest.raises(RunError, match=r"report/other: no such file"):
        run.read_bytes("report/other")


@pytest.mark.parametrize("name", ["", "..", "../other", "/etc", "a//b", "a/", "a/../..", "."])
def test_no_name_reaches_outside_the_run_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir()
    run = RunFolder(str(tmp_path / "run"))
    for use in (run.clear, run.exists, run.read_table, lambda name: run.write_bytes(name, b"")):
        with pytest.raises(RunError, match="no name within a run folder"):
            use(name)
    assert (tmp_path / "other").exists()


def test_rejected_is_no_stage(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    for use in (run.clear, run.manifest, lambda stage: finish(run, stage)):
        with pytest.raises(RunError, match="'rejected' is no stage"):
            use("rejected")


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder("runs/demo/")
    assert run.path == str(tmp_path / "runs" / "demo")
    assert run.child("students", "a") == f"{run.path}/students/a"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunFolder("~/r").path == str(tmp_path / "r")
    for path, message in {"gs://b/x": "neither", "": "neither", "s3://": "names no bucket"}.items():
        with pytest.raises(RunError, match=message):
            filesystem(path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(RunError, match="write http://host:port"):
        filesystem("s3://bucket/run")


def test_file_that_a_killed_writer_left_cut_off_has_no_rows(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    run.write_table("stage/left", pa.table({"n": [1, 2]}))
    whole = (tmp_path / "stage/left/part-00000.parquet").read_bytes()
    (tmp_path / "stage/left/part-00001.parquet").write_bytes(whole[:-20])
    (tmp_path / "stage/left/part-00002.parquet").write_bytes(b"")
    assert run.count_rows("stage/left") == 2


def test_work_of_a_stage_goes_whatever_its_settings_were(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    for name in ("students/a-1", "students/a-2", "students/ab-1", "students/a/answers-1"):
        run.write_table(f"work/{name}", pa.table({"n": [1]}))
    run.clear_work("students/a")
    assert sorted(str(file.parent.relative_to(tmp_path)) for file in tmp_path.rglob("*.parquet")) == [
        "work/students/a/answers-1",
        "work/students/ab-1",
    ]
    run.clear_work("patients")  # that has none


class Person(BaseModel):
    patient_id: str
    age_years: float | None = None


def test_rows_one_by_one_are_models_or_mappings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ROWS_TOGETHER", 2)
    run = RunFolder(str(tmp_path))
    plain = {"patient_id": "p2", "age_years": None}
    rows: list[Any] = [Person(patient_id="p1", age_years=70), plain, Person(patient_id="p3")]
    with run.table_writer("patients", TABLE.schema) as writer:
        for row in rows:
            writer.add(row)
        assert not run.exists("patients/part-00000.parquet"), "nothing stands before its end"
    assert writer.rows == 3
    assert run.read_table("patients").to_pylist() == [
        {"patient_id": "p1", "age_years": 70.0},
        {"patient_id": "p2", "age_years": None},
        {"patient_id": "p3", "age_years": None},
    ]

    def lose() -> None:
        with run.table_writer("patients", TABLE.schema) as writer:
            writer.add({"patient_id": "p9", "age_years": 1.0})
            raise RunError("lost")

    with pytest.raises(RunError, match="lost"):
        lose()
    assert run.read_table("patients").num_rows == 3, "the old table stands"


def test_parts_are_the_parquet_files_of_a_folder_finished_or_not(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    assert run.parts("stage/left") == []
    for name in ("b.parquet", "a.parquet", ".c.parquet.tmp", "notes.txt", "deeper/d.parquet"):
        run.write_bytes(f"stage/left/{name}", b"half a file")
    pq.write_table(TABLE, tmp_path / "stage/left/a.parquet")
    assert run.parts("stage/left") == [f"{run.path}/stage/left/{name}" for name in ("a.parquet", "b.parquet")]
    with run.parquet(run.parts("stage/left")[0]) as file:
        assert file.metadata.num_rows == 2
        assert file.read(["age_years"]).to_pylist() == [{"age_years": 70.0}, {"age_years": None}]
    with pytest.raises(pa.ArrowInvalid), run.parquet(run.parts("stage/left")[1]):
        pass


def test_submitted_job_needs_a_run_folder_that_outlives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JOB_VARIABLE, "{}")
    with pytest.raises(RunError, match=r"run\.path 'runs/demo' is relative.*s3://"):
        RunFolder("runs/demo")
    assert RunFolder(str(tmp_path)).path == str(tmp_path)
