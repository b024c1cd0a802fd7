"""The job from study files to findings, as it is called, on an invented study of every kind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from clinical_reasoner.cohort.deidentify import KEY_VARIABLE
from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import CohortRunConfig, PipelineConfig
from clinical_reasoner.evidence.stage import make_findings
from clinical_reasoner.imaging.stage import make_measures
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask
from tests.unit.cohort.fixtures.released import released_oasis1
from tests.unit.cohort.fixtures.studies import PEOPLE, STUDIES, Invented

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef" * 2
WITH_LABEL_MAPS = {"bids": "samseg-7.3", "freesurfer": "freesurfer-6.0+voxels"}
"""Kind whose scans are measured, under Ray, and its segmenter: no table corrects FreeSurfer's for partial volume."""
WITH_VOLUMES = ("adni", "mapped", "oasis3", "synthseg")
"""Kinds whose tables tell regional volumes."""
LIMIT_S = 240


@dataclass(frozen=True)
class Built:
    kind: str
    study: Invented
    path: Path
    first: str
    second: str
    """Standard output of the job and of the same job again."""

    def rows(self, stage: str) -> list[dict[str, Any]]:
        tables = [pq.read_table(file) for file in sorted((self.path / stage).glob("*.parquet"))]
        return [row for table in tables for row in table.to_pylist()]

    def manifest(self, stage: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / stage / "manifest.json").read_text(encoding="utf-8"))
        return found


def job(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", KEY_VARIABLE)}
    return subprocess.run(
        [sys.executable, "jobs/build_cohort.py", *arguments],
        cwd=ROOT,
        env={**clean, "PYTHONPATH": "platform", **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def output_of(*arguments: str) -> str:
    done = job(*arguments, **{KEY_VARIABLE: KEY})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=[pytest.mark.integration] * (kind in WITH_LABEL_MAPS)) for kind in STUDIES],
)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    kind: str = request.param
    folder = tmp_path_factory.mktemp(kind)
    (folder / "study").mkdir()
    study = STUDIES[kind](folder / "study")
    arguments = ("--config", f"configs/cohort/{kind}.yaml", f"cohort.path={study.path}", f"run.path={folder / 'run'}")
    shares = ("cohort.splits.train=0.5", "cohort.splits.test=0.4")  # of fourteen people, some in each
    outputs = [output_of(*arguments, *shares, *study.overrides) for _ in range(2)]
    return Built(kind, study, folder / "run", *outputs)


def test_every_row_is_accounted_for(built: Built) -> None:
    manifest = built.manifest("patients")
    assert manifest["rows_out"] == len(built.rows("patients")) == len(PEOPLE)
    assert manifest["rows_in"] == len(PEOPLE) + built.study.reasons.total()
    of_patients = [row for row in built.rows("rejected") if row["stage"] == "patients"]
    assert Counter(row["reason"] for row in of_patients) == built.study.reasons
    for stage in ("measures", "findings"):
        found = built.manifest(stage)
        assert (found["rows_rejected"], found["rows_in"]) == (0, found["rows_out"])
        assert found["rows_out"] == (len(PEOPLE) if stage == "findings" or built.kind in WITH_LABEL_MAPS else 0)


def test_no_id_and_no_age_above_89_is_in_the_tables(built: Built) -> None:
    patients, findings = built.rows("patients"), built.rows("findings")
    for row in patients:
        paths = {name: row.pop(name) for name in ("image_path", "segmentation_path")}
        assert any(paths.values()) == built.study.holds_paths
    for rows in (patients, findings, built.rows("measures"), built.rows("rejected")):
        text = json.dumps(rows)
        assert not any(id_ in text for id_ in built.study.ids)
    page = (built.path / "report" / "cohort.html").read_text(encoding="utf-8")
    assert not any(id_ in text for id_ in built.study.ids for text in (built.first, built.second, page))
    assert sorted(row["age_years"] for row in patients)[-2:] == [
        pytest.approx(built.study.second_oldest, abs=0.5),
        90.0,
    ]
    (oldest,) = (row for row in patients if row["age_years"] == 90.0)
    assert oldest["at_least"] == ["age_years"]
    (described,) = (row["description"] for row in findings if row["patient_id"] == oldest["patient_id"])
    assert "is 90 years or older" in described
    years = [int(age) for row in findings for age in re.findall(r"(\d+) years ol?[dr]", row["description"])]
    assert len(years) == len(PEOPLE) and max(years) == 90


def test_it_says_what_became_of_the_cohort(built: Built, task: DiagnosisTask) -> None:
    for stage in ("patients", "measures", "findings"):
        assert re.search(rf"(?m)^\[{stage}\] \d+ rows, \d+ rejected", built.first)
    # of fourteen people, too few are controls
    assert ("MRI is not graded by w-scores" in built.first) == (built.kind in (*WITH_LABEL_MAPS, *WITH_VOLUMES))
    for output in (built.first, built.second):
        for label in task.label_names:
            assert re.search(rf"{label} [│ \d]+", output)
        assert all(reason[:40] in output for reason in built.study.reasons)
        assert str(built.path / "findings") in output and str(built.path / "report" / "cohort.html") in output
        assert ("which may tell ids" in output) == built.study.holds_paths


def test_second_run_is_skipped(built: Built) -> None:
    for stage in ("patients", "measures", "findings"):
        assert f"[{stage}] finished before: " in built.second
    assert summary(built.second) == summary(built.first) != []


def summary(output: str) -> list[str]:
    """The table of who is left, without what Ray says of a slow machine."""
    return [line for line in output.partition("Visits with findings")[2].splitlines() if "(raylet)" not in line]


def test_label_maps_are_measured(built: Built) -> None:
    segmenters = {WITH_LABEL_MAPS[built.kind]} if built.kind in WITH_LABEL_MAPS else set()
    assert {row["segmenter"] for row in built.rows("measures")} == segmenters
    for row in built.rows("measures"):
        assert {one["name"] for one in row["measures"]} >= {"hippocampus", "entorhinal", "lateral_ventricle", "icv"}


def test_another_release_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    study = STUDIES["oasis2"](tmp_path / "study")
    arguments = ("--config", "configs/cohort/oasis2.yaml", f"cohort.path={study.path}", f"run.path={tmp_path / 'run'}")
    output_of(*arguments)
    study.path.write_text(study.path.read_text(encoding="utf-8").replace(",29,", ",28,", 1), encoding="utf-8")
    done = job(*arguments, **{KEY_VARIABLE: KEY})
    assert done.returncode == 2 and "stage 'patients' was made with other settings (source.files" in done.stderr
    assert "[patients] 14 rows" in output_of(*arguments, "run.overwrite=true")
    done = job(*arguments, **{KEY_VARIABLE: KEY[::-1]})
    assert done.returncode == 2 and "source.key" in done.stderr and KEY[::-1] not in done.stderr


def test_a_run_with_models_goes_on_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study").mkdir()
    path = STUDIES["oasis2"](tmp_path / "study").path
    places = [f"cohort.path={path}", f"run.path={tmp_path / 'run'}"]
    output_of("--config", "configs/cohort/oasis2.yaml", *places)
    file = tmp_path / "whole.yaml"
    parts = [str(ROOT / "configs" / name) for name in ("defaults/reference_models.yaml", "cohort/oasis2.yaml")]
    file.write_text(yaml.safe_dump({"defaults": parts}), encoding="utf-8")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    config, run = load_config(PipelineConfig, file, places), RunFolder(str(tmp_path / "run"))
    for make, stage in ((make_patients, "patients"), (make_measures, "measures"), (make_findings, "findings")):
        assert make(config, run) == run.manifest(stage), "made before, and not again"


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("oasis1", (), f"{KEY_VARIABLE}: no key to replace ids with"),
        ("oasis1", ("cohort.deidentify.ids=keep",), "no file or folder at 'path/to/oasis_cross-sectional.csv'"),
        ("adni", ("cohort.covariates=x.csv",), "covariates is for kind freesurfer, not for 'adni'"),
        ("mapped", ("cohort.mapping=null",), "kind 'mapped' needs a mapping"),
        ("nacc", ("cohort.name=synthetic-nacc",), "must not start with 'synthetic'"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(
    tmp_path: Path, kind: str, arguments: tuple[str, ...], message: str
) -> None:
    done = job("--config", f"configs/cohort/{kind}.yaml", f"run.path={tmp_path / 'run'}", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_dry_run_is_light_and_needs_no_model() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "jobs/build_cohort.py",
            "--config",
            "configs/cohort/adni.yaml",
            "--dry-run",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "platform"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)) == set(CohortRunConfig.model_fields)
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert imported.isdisjoint({"ray", "torch", "transformers", "vllm", "nibabel", "sklearn", "pandas"})


def test_oasis_1_as_released(tmp_path: Path) -> None:
    file = released_oasis1()
    if file is None:
        pytest.skip("no shared/data/oasis_cross-sectional.csv beside the repository; OASIS-1 is not ours to ship")
    output_of("--config", "configs/cohort/oasis1.yaml", f"cohort.path={file}", f"run.path={tmp_path}")
    built = Built("oasis1", Invented(file, ()), tmp_path, "", "")
    manifest = built.manifest("patients")
    assert (manifest["rows_in"], manifest["rows_out"], manifest["rows_rejected"]) == (436, 235, 201)
    reasons = Counter(row["reason"] for row in built.rows("rejected"))
    assert sorted(reasons.values()) == [20, 181]
    findings = built.rows("findings")
    assert Counter(row["label"] for row in findings) == {"NC": 135, "MCI": 70, "AD": 30}
    age, person = r"(is \d+ years old|is 90 years or older)", r"is a (wo)?man"
    education = (
        r"(did not finish high school|finished high school|went to college without a degree|is a college graduate|"
        r"was educated beyond college)"
    )
    points = r"The patient scored \d+ out of 30 on the Mini-Mental State Examination \(MMSE\)\."
    whole = re.compile(rf"The patient {age}, {person} and {education}\. {points}\n\n[^\n]+\?[^\n]+")
    assert [row["description"] for row in findings if not whole.fullmatch(row["description"])] == []
    text = json.dumps(findings) + json.dumps(built.rows("patients"))
    assert "OAS1" not in text and "married" not in text.replace("marital_status", "")
