"""Stage `findings`: the task is checked before any patient, and too little evidence says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.evidence.stage import make_findings
from clinical_reasoner.records import FINDINGS, PATIENTS, Measure, PatientRow, to_table
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import TaskError

ROOT = Path(__file__).parents[3]
TASK = ROOT / "configs/tasks/alzheimers.yaml"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def config_of(folder: Path, *rows: str, task: Path = TASK) -> PipelineConfig:
    file = folder / "own.csv"
    file.write_text("\n".join(["patient_id,label,split,mmse", *rows]), encoding="utf-8")
    return load_config(PipelineConfig, "configs/own_cohort.yaml", [f"cohort.path={file}", f"task.file={task}"])


def test_visits_without_diagnosis_or_evidence_are_rejected(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path / "run"))
    rows = ("a,AD,train,20", "b,NC,train,29", "c,NC,test,30", "d,,train,25", "e,AD,train,")
    config = config_of(tmp_path, *rows)
    make_patients(config, run)
    manifest = make_findings(config, run)
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_rejected) == (5, 3, 2)
    assert run.read_table("findings", FINDINGS).column("patient_id").to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ("a,,train,20", "b,,train,29", "c,NC,test,30"),
            r"fewer than two diagnoses \(1 rows left, 2 rejected, 2 of them for: no diagnosis",
        ),
        (("a,AD,train,20", "b,NC,train,29", "c,NC,test,"), r"test split \(2 rows left, 1 rejected, .* no evidence"),
        (("a,AD,train,20", "b,AD,train,29", "c,NC,test,28"), r"fewer than two diagnoses \(3 rows in all\)"),
    ],
)
def test_too_little_left_says_why_and_leaves_the_reasons(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    run, config = RunFolder(str(tmp_path / "run")), config_of(tmp_path, *rows)
    make_patients(config, run)
    with pytest.raises(UserError, match=message):
        make_findings(config, run)
    rejected = sum(row.endswith(",") or ",," in row for row in rows)
    assert run.read_table("rejected").num_rows == rejected
    assert run.manifest("findings") is None


def test_field_that_no_table_has_is_named_before_any_patient(tmp_path: Path) -> None:
    raw = yaml.safe_load(TASK.read_text(encoding="utf-8"))
    raw["sentences"][0][0]["name"] = "age"
    own = tmp_path / "task.yaml"
    own.write_text(yaml.safe_dump(raw), encoding="utf-8")
    run, config = RunFolder(str(tmp_path / "run")), config_of(tmp_path, "a,AD,train,20", "b,NC,test,29", task=own)
    make_patients(config, run)
    with pytest.raises(TaskError, match=r"task\.yaml: field 'age': no column of numbers"):
        make_findings(config, run)


def volumes_run(folder: Path, people: int) -> RunFolder:
    """A run whose patients stage is finished: controls of the training split, and one AD patient to test with."""
    rng = np.random.default_rng(8)
    rows = []
    for number in range(people):
        sick = number == 0
        sizes = {"hippocampus": 7000 * np.exp(0.1 * rng.normal()) * (0.6 if sick else 1.0), "icv": 1.5e6}
        rows.append(
            PatientRow(
                patient_id=f"p{number}",
                visit_id="bl",
                cohort="c",
                split="test" if sick else "train",
                label="AD" if number < 2 else "NC",
                age_years=float(rng.uniform(60, 85)),
                sex="male" if number % 2 else "female",
                segmenter="own-1",
                measures=tuple(Measure(name=name, value=float(size), unit="mm3") for name, size in sizes.items()),
            )
        )
    run = RunFolder(str(folder))
    run.write_table("patients", to_table(rows, PATIENTS))
    run.finish("patients", settings={}, inputs={}, rows_in=people, rows_out=people, rows_rejected=0, seconds=0.0)
    return run


def graded(run: RunFolder) -> list[list[str]]:
    rows = run.read_table("findings", FINDINGS).to_pylist()
    return [[finding["grade"] for finding in row["findings"]] for row in rows]


def test_norms_of_one_run_grade_another_that_has_too_few_controls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(PipelineConfig, "configs/own_cohort.yaml", ["cohort.path=x.csv"])
    large, small = volumes_run(tmp_path / "large", 80), volumes_run(tmp_path / "small", 20)
    make_findings(config, large)
    assert graded(large)[0] == ["Severe"] and capsys.readouterr().out.count("not graded") == 0
    make_findings(config, small)
    assert graded(small) == [[]] * 20 and "18 controls of the training split" in capsys.readouterr().out
    norms = f"evidence.norms={large.child('findings', 'norms.json')}"
    overrides = ["cohort.path=x.csv", norms, "run.overwrite=true"]
    borrowed = load_config(PipelineConfig, "configs/own_cohort.yaml", overrides)
    make_findings(borrowed, small)
    assert graded(small) == graded(large)[:20]
