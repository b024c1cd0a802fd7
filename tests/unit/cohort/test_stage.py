"""Stage `patients`: what decides its result, and what it says when nobody is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import PATIENTS
from clinical_reasoner.runs import RunError, RunFolder

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def table_config(folder: Path, *rows: str) -> PipelineConfig:
    file = folder / "own.csv"
    file.write_text("\n".join(["patient_id,label,split,mmse", *rows]), encoding="utf-8")
    return load_config(PipelineConfig, "configs/own_cohort.yaml", [f"cohort.path={file}"])


def test_population_is_followed_into_the_files_it_builds_on(tmp_path: Path) -> None:
    for name in ("population_clinic.yaml", "population_adni.yaml"):
        (tmp_path / name).write_text((ROOT / "configs/cohort" / name).read_text(encoding="utf-8"), encoding="utf-8")
    run, base = RunFolder(str(tmp_path / "run")), tmp_path / "population_clinic.yaml"
    overrides = [f"cohort.population={tmp_path / 'population_adni.yaml'}", "cohort.patients=60"]
    config = load_config(PipelineConfig, "configs/demo.yaml", overrides)
    first = make_patients(config, run)
    assert first.rows_out == 60
    base.write_text(f"# said otherwise\n{base.read_text(encoding='utf-8')}", encoding="utf-8")
    assert make_patients(config, run) == first
    base.write_text(base.read_text(encoding="utf-8").replace("missing_share: 0.03", "missing_share: 0.1"), "utf-8")
    with pytest.raises(RunError, match=r"missing_share: 0\.03 -> 0\.1"):
        make_patients(config, run)


def test_nobody_left_says_why_and_leaves_the_reasons(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path / "run"))
    config = table_config(tmp_path, "ann,delirium,,20", "bob,delirium,,20", "eve,AD,,99")
    reason = r"0 rows left, 3 rejected, 2 of them for: label is none of AD, MCI, NC\); mend those rows"
    with pytest.raises(UserError, match=rf"^cohort: no patient in split 'train' \({reason}") as error:
        make_patients(config, run)
    assert "delirium" not in str(error.value) and "ann" not in str(error.value)
    sources = run.read_table("rejected").column("source").to_pylist()
    assert sources == ["own.csv:2", "own.csv:3", "own.csv:4"]
    assert run.manifest("patients") is None


def test_too_few_people_without_any_rejected(tmp_path: Path) -> None:
    config = table_config(tmp_path, "ann,AD,train,20", "bob,NC,train,29")
    message = r"^cohort: no patient in split 'test' \(2 rows in all\); use more patients or other splits$"
    with pytest.raises(UserError, match=message):
        make_patients(config, RunFolder(str(tmp_path / "run")))


def test_rows_in_are_patients_and_rejected(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path / "run"))
    manifest = make_patients(table_config(tmp_path, "ann,AD,train,20", "bob,NC,test,29", "eve,NC,,99"), run)
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_rejected) == (3, 2, 1)
    assert run.read_table("patients", PATIENTS).column("patient_id").to_pylist() == ["ann", "bob"]
