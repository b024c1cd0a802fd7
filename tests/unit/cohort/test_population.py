"""The synthetic population as data: what it must satisfy, and that it fits its task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.cohort.population import MMSE_RANGE, LabelDistribution, Normal, Population, check_population
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.config.loading import ConfigError, load_config
from clinical_reasoner.errors import UserError
from clinical_reasoner.task import DiagnosisTask

FILE = Path(__file__).parents[3] / "configs/cohort/population_clinic.yaml"
Change = Callable[[dict[str, Any]], object]


def shares(population: dict[str, Any], **values: float) -> None:
    for label, share in values.items():
        population["labels"][label]["share"] = share


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: shares(raw, AD=0.5), r"share add up to 1\.1667"),
        (lambda raw: raw.update(cut_points=[-2.0, -1.0]), r"cut_points .* must descend"),
        (lambda raw: raw.update(cut_points=[-1.0, -1.0]), r"cut_points .* must descend"),
        (lambda raw: raw.update(name="clinic"), r"name = .clinic. .*'\^synthetic'"),
        (
            lambda raw: raw["findings"]["frontal_atrophy"].update(effect=4.0),
            r"effect 4\.0 times .*0\.25 must stay below 1",
        ),
        (lambda raw: raw["labels"]["NC"]["severity"].update(sd=0.6), r"effect 1\.8 times .*0\.6 must stay below 1"),
        (lambda raw: raw["labels"]["AD"]["mmse"].update(sd=0.0), r"labels\.AD\.mmse\.sd"),
        (lambda raw: raw["labels"]["AD"].update(mmse_range=[24, 31]), r"mmse_range \[24, 31\] must ascend within"),
        (lambda raw: raw["labels"]["AD"].update(mmse_range=[26, 20]), r"mmse_range \[26, 20\] must ascend within"),
        (lambda raw: raw["labels"]["AD"].update(apoe4_carriers=1.0), r"labels\.AD\.apoe4_carriers"),
        (lambda raw: raw.update(missing_share=1.0), "missing_share"),
        (lambda raw: raw.update(shared_varianse=0.1), r"shared_varianse.*shared_variance"),
    ],
)
def test_impossible_population_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    raw = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    change(raw)
    file = tmp_path / "population.yaml"
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(Population, file)


def test_controls_are_the_least_severe_and_not_the_last(population: Population) -> None:
    turned = population.model_copy(update={"labels": dict(reversed(population.labels.items()))})
    assert population.controls == turned.controls == population.labels["NC"]


def test_residual_leaves_a_total_variance_of_one_in_controls(population: Population) -> None:
    for name, finding in population.findings.items():
        from_severity = finding.effect * population.controls.severity.sd
        assert population.residual_sd(name) ** 2 + from_severity**2 == pytest.approx(1)
    assert population.residual_sd("medial_temporal_atrophy") == pytest.approx((1 - 0.45**2) ** 0.5)


@given(carriers=st.floats(0, 0.999))
def test_apoe4_copies_are_in_hardy_weinberg_proportions(carriers: float) -> None:
    normal = Normal(mean=0, sd=1)
    label = LabelDistribution(
        share=1,
        severity=normal,
        age_years=normal,
        education_years=normal,
        mmse=normal,
        female_share=0.5,
        apoe4_carriers=carriers,
    )
    none, one, two = label.apoe4_probabilities
    assert none + one + two == pytest.approx(1)
    assert one + two == pytest.approx(carriers)
    assert one**2 == pytest.approx(4 * none * two)
    assert one >= two or carriers > 0.8


def test_shipped_populations_fit_the_task_and_differ_in_mmse_alone(population: Population, task: DiagnosisTask) -> None:
    adni = load_config(Population, FILE.with_name("population_adni.yaml"))
    for one in (population, adni):
        check_population(one, task)
        assert one.name.startswith("synthetic")
        for probabilities in one.marital_status.values():
            assert sum(probabilities.values()) == pytest.approx(1)
        assert set(one.marital_status) == {"female", "male"}
    same = {
        name: label.model_copy(update={"mmse": population.labels[name].mmse, "mmse_range": MMSE_RANGE})
        for name, label in adni.labels.items()
    }
    assert adni.model_copy(update={"name": population.name, "labels": same}) == population
    assert adni.labels["AD"].mmse == Normal(mean=23.3, sd=2.1)


def test_scores_stay_in_the_range_of_the_study() -> None:
    adni = load_config(Population, FILE.with_name("population_adni.yaml"), ["missing_share=0"])
    drawn = [draw_patient(adni, index, 3, {"train": 1.0}) for index in range(600)]
    for label, spec in adni.labels.items():
        scores = [patient.mmse or 0 for patient in drawn if patient.label == label]
        assert spec.mmse_range[0] <= min(scores) < max(scores) <= spec.mmse_range[1], label


def test_population_of_another_task_is_refused(population: Population, task: DiagnosisTask) -> None:
    def refused(change: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            check_population(population.model_copy(update=change), task)

    labels, findings = dict(population.labels), dict(population.findings)
    refused({"labels": {"SCD": labels.pop("MCI"), **labels}}, r"labels \['AD', 'NC', 'SCD'\]")
    refused({"findings": {**findings, "insular_atrophy": findings["frontal_atrophy"]}}, "finding 'insular_atrophy'")
    refused({"cut_points": (-1.0,)}, "1 cut points cannot part 3 grades")
