"""One stage of a run: made once, skipped when finished, never continued from other settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clinical_reasoner.runs import RunError, RunFolder
from clinical_reasoner.stages import (
    Rows,
    Stage,
    file_fingerprint,
    model_fingerprint,
    run_stage,
    stage_inputs,
    work_folder,
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run"))


class Maker:
    """A stage's work: counts how often it was asked for, and writes as many rows as it is told."""

    def __init__(self, run: RunFolder, stage: str, rows: int = 3) -> None:
        self.run, self.stage, self.rows, self.calls = run, stage, rows, 0

    def __call__(self) -> Rows:
        self.calls += 1
        self.run.write_table(self.stage, pa.table({"n": list(range(self.rows))}))
        return Rows(self.rows + 1, self.rows, 1, {"kind": "test"})


def stage(settings: dict[str, Any] | None = None, reads: tuple[str, ...] = ()) -> Stage:
    return Stage("findings", settings or {"cut": [-1, -2]}, reads)


def finish_upstream(run: RunFolder, seed: int = 0, *, overwrite: bool = False) -> None:
    run_stage(run, Stage("patients", {"seed": seed}), Maker(run, "patients"), overwrite=overwrite)


def test_finished_stage_is_not_made_again(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    make = Maker(run, "findings")
    first = run_stage(run, stage(), make)
    assert (first.rows_in, first.rows_out, first.rows_rejected) == (4, 3, 1)
    assert first.details == {"kind": "test"}
    assert run_stage(run, stage(), make) == first
    assert run_stage(run, stage(), make, overwrite=True) == first
    assert make.calls == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "[findings] ..."
    assert said[1].startswith("[findings] 3 rows, 1 rejected, ")
    assert said[2:] == ["[findings] finished before: 3 rows"] * 2


def test_upstream_must_be_finished(run: RunFolder) -> None:
    make = Maker(run, "findings")
    with pytest.raises(RunError, match="stage 'findings' reads 'patients', which is not finished"):
        run_stage(run, stage(reads=("patients",)), make)
    assert make.calls == 0
    finish_upstream(run)
    manifest = run_stage(run, stage(reads=("patients",)), make)
    upstream = run.manifest("patients")
    assert upstream is not None and manifest.inputs == {"patients": upstream.identity}


def test_other_settings_are_refused_unless_overwritten(run: RunFolder) -> None:
    make = Maker(run, "findings")
    run_stage(run, stage({"cut": [-1, -2]}), make)
    with pytest.raises(RunError, match=r"cut: \[-1,-2\] -> \[-1,-3\].*run\.overwrite=true"):
        run_stage(run, stage({"cut": [-1, -3]}), make)
    assert make.calls == 1
    make.rows = 5
    assert run_stage(run, stage({"cut": [-1, -3]}), make, overwrite=True).rows_out == 5
    assert make.calls == 2


def test_change_upstream_makes_the_stage_stale(run: RunFolder) -> None:
    make = Maker(run, "findings")
    finish_upstream(run)
    run_stage(run, stage(reads=("patients",)), make)
    finish_upstream(run, seed=1, overwrite=True)
    with pytest.raises(RunError, match="changed upstream: 'patients'"):
        run_stage(run, stage(reads=("patients",)), make)


def fail(run: RunFolder) -> Rows:
    run.write_table("findings", pa.table({"n": [1]}))
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("make", "error"), [(fail, ZeroDivisionError), (lambda run: Rows(3, 1, 1), RunError)], ids=["crash", "lost row"]
)
def test_stage_that_fails_is_not_finished(
    run: RunFolder, make: Callable[[RunFolder], Rows], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run_stage(run, stage(), lambda: make(run))
    assert run.manifest("findings") is None
    again = Maker(run, "findings")
    run_stage(run, stage(), again)
    assert again.calls == 1
    assert run.read_table("findings").num_rows == 3


def test_unfinished_work_is_kept_apart_by_settings_and_inputs(run: RunFolder) -> None:
    finish_upstream(run)
    reading = stage(reads=("patients",))
    folder = work_folder(run, reading)
    assert folder == work_folder(run, stage(reads=("patients",)))
    assert folder.startswith("work/findings-")
    assert folder != work_folder(run, stage({"cut": [-1, -3]}, reads=("patients",)))
    before = stage_inputs(run, reading)
    finish_upstream(run, seed=1, overwrite=True)
    assert stage_inputs(run, reading) != before
    assert folder != work_folder(run, reading)


def test_file_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("1")
    second.write_text("1")
    assert file_fingerprint(str(first)) == file_fingerprint(str(second))
    second.write_text("2")
    assert file_fingerprint(str(first)) != file_fingerprint(str(second))
    with pytest.raises(RunError, match=r"no file at .*c\.csv"):
        file_fingerprint(str(tmp_path / "c.csv"))


def test_model_fingerprint_sees_weights_and_config_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    (tmp_path / "config.json").write_text("{}")
    first = model_fingerprint(str(tmp_path))
    (tmp_path / "README.md").write_text("a card")
    assert model_fingerprint(str(tmp_path)) == first
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 99 + b"\1")
    second = model_fingerprint(str(tmp_path))
    (tmp_path / "config.json").write_text('{"a": 1}')
    third = model_fingerprint(str(tmp_path))
    assert len({first, second, third}) == 3


@pytest.mark.parametrize("model", ["organisation/model", "model", "s3://bucket/folder/model"])
def test_model_elsewhere_is_known_by_its_name(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "organisation").mkdir()
    assert model_fingerprint(model) == model


@pytest.mark.parametrize("model", ["./model", "../model", "/models/none", "~/model", "models/teacher/v2", "models/v2/"])
def test_what_can_only_be_a_folder_must_be_there(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=rf"no folder at '{model}' \(looked in {tmp_path}\)"):
        model_fingerprint(model)


def test_local_model_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "teacher").mkdir(parents=True)
    (tmp_path / "models" / "teacher" / "config.json").write_text("{}")
    fingerprints = {model_fingerprint(name) for name in ("models/teacher", "./models/teacher", "models/teacher/")}
    assert len(fingerprints) == 1
    assert len(fingerprints.pop()) == 64
