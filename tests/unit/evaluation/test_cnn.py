"""Stage `baselines/cnn_3d` on real NIfTI cubes: it learns, twice the same, and every visit is accounted for."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pytest

from clinical_reasoner.config.loading import ConfigError, load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.evaluation.baselines import CNN_STAGE, KEYS
from clinical_reasoner.evaluation.cnn import make_cnn
from clinical_reasoner.evaluation.collect import collect
from clinical_reasoner.evaluation.predictions import make_predictions
from clinical_reasoner.evidence.description import describe
from clinical_reasoner.records import (
    FINDINGS,
    PATIENTS,
    PREDICTIONS,
    RATIONALES,
    REJECTED,
    FindingsRow,
    PatientRow,
    Split,
    to_table,
)
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage
from clinical_reasoner.task import DiagnosisTask

ROOT = Path(__file__).parents[3]
SIDE = 16
PEOPLE: dict[Split, int] = {"train": 24, "validation": 8, "test": 10}
SMALL = (
    "imaging.cubes=true",
    f"imaging.cube_side={SIDE}",
    "evaluation.baselines=[majority, logistic_regression, gradient_boosting, cnn_3d]",
    "evaluation.cnn_3d={blocks: [1, 1], init_features: 4, growth: 4, epochs: 6, patience: 6, learning_rate: 0.02}",
)


def config(*overrides: str) -> PipelineConfig:
    return load_config(PipelineConfig, ROOT / "configs/own_cohort.yaml", (*SMALL, *overrides))


def finish(run: RunFolder, stage: str, table: pa.Table) -> None:
    def make() -> Rows:
        run.write_table(stage, table)
        return Rows(table.num_rows, table.num_rows)

    run_stage(run, Stage(stage, {}), make)


def cube(ball: bool, number: int) -> bytes:
    """Noise, with a bright ball for one of the two classes: a NIfTI file."""
    rng = np.random.default_rng(number)
    voxels = rng.integers(0, 120, size=(SIDE,) * 3).astype(np.uint8)
    if ball:
        centre = 7.5 + rng.uniform(-1, 1, size=3)
        apart = np.linalg.norm(np.indices(voxels.shape) - centre[:, None, None, None], axis=0)
        voxels[apart < 4] = 250
    image: Any = nib.Nifti1Image(voxels, np.diag([13.0, 13.0, 13.0, 1.0]))  # type: ignore[no-untyped-call]
    return gzip.compress(image.to_bytes())


def row(split: Split, number: int, path: str | None, task: DiagnosisTask) -> FindingsRow:
    known = {"patient_id": f"{split}-{number}", "visit_id": "v", "split": split, "label": ("AD", "NC")[number % 2]}
    patient = PatientRow(**known, cohort="c", age_years=70 + number % 20, mmse=20 + number % 5)
    return FindingsRow(**known, description=describe(patient, {}, task), cube_path=path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: DiagnosisTask) -> RunFolder:
    """People with a cube each, and four test visits whose cube is missing, broken or of another size."""
    monkeypatch.chdir(ROOT)
    run = RunFolder(str(tmp_path))
    rows = []
    for place, (split, people) in enumerate(PEOPLE.items()):
        for number in range(people):
            path = f"cubes/{split}-{number}.nii.gz"
            run.write_bytes(path, cube(ball=number % 2 == 0, number=1000 * place + number))
            rows.append(row(split, number, path, task))
    run.write_bytes("cubes/broken.nii.gz", cube(ball=True, number=1)[:200])
    larger: Any = nib.Nifti1Image(np.zeros((20, 20, 20), np.uint8), np.eye(4))  # type: ignore[no-untyped-call]
    run.write_bytes("cubes/larger.nii.gz", gzip.compress(larger.to_bytes()))
    unusable = (None, "cubes/gone.nii.gz", "cubes/broken.nii.gz", "cubes/larger.nii.gz")
    rows += [row("test", 100 + number, path, task) for number, path in enumerate(unusable)]
    finish(run, "findings", to_table(rows, FINDINGS))
    return run


def answers(run: RunFolder) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run.read_table(CNN_STAGE, PREDICTIONS).to_pylist()
    return rows


def test_cnn_learns_a_separable_case_twice_the_same(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    first = make_cnn(config(), run)
    found = answers(run)
    tested = [row for row in found if row["split"] == "test"]
    assert len(tested) == 10 and all(row["predicted"] == row["label"] for row in tested)
    assert {(row["model"], row["arm"], row["seed"]) for row in found} == {(*KEYS["cnn_3d"], None)}
    assert all(sum(row["probabilities"]) == pytest.approx(1) for row in found)
    assert first is not None and first.details["trained_on"] == 24
    assert max(first.details["macro_f1_validation"]) == first.details["macro_f1_validation"][first.details["epoch"] - 1]
    assert "3D CNN, steps: " in capsys.readouterr().out
    assert make_cnn(config(), run) == first, "finished: not trained again"
    run.clear(CNN_STAGE)
    make_cnn(config(), run)
    assert answers(run) == found
    make_cnn(config("evaluation.cnn_3d.seed=1", "run.overwrite=true"), run)
    assert answers(run) != found


def test_visits_without_a_cube_are_rejected_with_the_reason(run: RunFolder) -> None:
    manifest = make_cnn(config("evaluation.cnn_3d.epochs=1"), run)
    assert manifest is not None
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_rejected) == (46, 42, 4)
    rejected = run.read_table("rejected", REJECTED).to_pylist()
    assert [(row["source"], row["stage"]) for row in rejected] == [
        (f"findings row {number}", CNN_STAGE) for number in (43, 44, 45, 46)
    ]
    reasons = [row["reason"] for row in rejected]
    assert reasons[0] == "no cube: the visit has no scan, or it could not be used"
    assert reasons[1] == "cube: no such file"
    assert reasons[2].startswith("cube: cannot be read")
    assert reasons[3] == "cube: 20 voxels on a side, imaging.cube_side=16"


def test_comparison_holds_the_cnn_on_the_visits_that_it_answers(run: RunFolder) -> None:
    few = ("evaluation.resamples=100", "evaluation.examples=1")
    finish(run, "patients", PATIENTS.empty_table())
    for stage in ("rationales", *(f"students/student/{arm}/0/answers" for arm in config().student.arms)):
        finish(run, stage, RATIONALES.empty_table())
    make_cnn(config(), run)
    make_predictions(config(), run)
    report = collect(config(*few), run, run.read_table("predictions", PREDICTIONS))
    assert [(report.name(one), one.n) for one in report.metrics] == [
        ("Majority class", 14),
        ("Logistic regression", 14),
        ("Gradient boosting", 14),
        ("3D CNN (scans alone)", 10),
    ]
    assert [report.trained_on[one.model, one.arm] for one in report.metrics] == [24, 24, 24, 24]
    assert report.metrics[-1].accuracy.value == 1
    assert {stage.name: stage.rejected for stage in report.stages}[CNN_STAGE] == 4


def test_without_the_baseline_nothing_is_trained(run: RunFolder) -> None:
    assert make_cnn(config("evaluation.baselines=[majority]"), run) is None
    assert not run.exists(CNN_STAGE)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "cubes of fewer than two diagnoses in the training split"),
        ("validation", r"no cube in the validation split; its epoch is chosen there \(cohort.splits.validation\)"),
        ("test", "no cube in the test split"),
    ],
)
def test_split_without_cubes_says_what_is_wrong(run: RunFolder, split: str, message: str) -> None:
    table = run.read_table("findings", FINDINGS)
    rows = [row for row in table.to_pylist() if row["split"] != split or (split == "train" and row["label"] == "AD")]
    run.write_table("findings", pa.Table.from_pylist(rows, schema=FINDINGS))
    with pytest.raises(UserError, match=message):
        make_cnn(config(), run)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("imaging.cubes=false", "set imaging.cubes=true"),
        ("evaluation.cnn_3d.blocks=[1, 1, 1, 1]", "set imaging.cube_side=32 or more, or fewer blocks"),
        ("evaluation.baselines=[majority, majority]", "'majority' stands there twice"),
        ("evaluation.cnn_3d.batch_size=1", "batch_size"),
    ],
)
def test_config_that_cannot_work_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(override)
