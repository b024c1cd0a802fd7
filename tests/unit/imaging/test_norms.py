"""w-scores: the fit, its sign, what is never compared, files; and that it separates better than volumes do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.imaging.norms import (
    FEWEST_CONTROLS,
    Norm,
    NormRow,
    Norms,
    NormsError,
    Worse,
    fit_norms,
    load_norms,
    nominal_tesla,
    w_score,
)
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters, draw_volumes

ROOT = Path(__file__).parents[3]
WORSE: Mapping[str, Worse] = {"hippocampus": "low", "lateral_ventricle": "high"}
INTERCEPT, PER_YEAR, MALE, PER_LOG_ICV, SD = -2.0, -0.01, 0.02, 0.8, 0.1


def control(seed: int, **changed: Any) -> NormRow:
    """A control whose two measures lie on a known line, with a known spread."""
    rng = np.random.default_rng([1, seed])
    age, sex, log_icv = rng.uniform(60, 90), ("female", "male")[seed % 2], log(1.5e6) + rng.normal(0, 0.1)
    line = INTERCEPT + PER_YEAR * age + MALE * (sex == "male") + PER_LOG_ICV * log_icv
    values = {"hippocampus": exp(line + SD * rng.normal()), "lateral_ventricle": exp(10 - 2 * line + SD * rng.normal())}
    return replace(NormRow(values, age, sex, exp(log_icv), "freesurfer-7.4", 3.0), **changed)


@pytest.fixture(scope="module")
def controls() -> list[NormRow]:
    return [control(seed) for seed in range(400)]


@pytest.fixture(scope="module")
def norms(controls: list[NormRow]) -> Norms:
    return fit_norms(controls, WORSE)


def test_fit_finds_the_line(controls: list[NormRow], norms: Norms) -> None:
    norm = norms.find("hippocampus", "freesurfer-7.4", 3.0)
    assert norm is not None
    assert norm.per_year == pytest.approx(PER_YEAR, abs=0.002)
    assert norm.male == pytest.approx(MALE, abs=0.03)
    assert norm.per_log_icv == pytest.approx(PER_LOG_ICV, abs=0.15)
    assert norm.sd == pytest.approx(SD, rel=0.1)
    assert (norm.controls, norm.sexes) == (400, ("female", "male"))
    ages = [row.age_years for row in controls if row.age_years is not None]
    assert (norm.youngest_years, norm.oldest_years) == (min(ages), max(ages))


def test_controls_have_w_scores_of_mean_0_and_residual_sd_1(controls: list[NormRow], norms: Norms) -> None:
    scores = np.array([w_score(norms, "hippocampus", row) for row in controls], dtype=float)
    assert scores.mean() == pytest.approx(0, abs=1e-9)
    assert scores @ scores / (400 - 4) == pytest.approx(1)


def test_negative_is_more_affected_on_either_side(norms: Norms) -> None:
    person = control(1000)

    def score(name: str, factor: float) -> float:
        found = w_score(norms, name, replace(person, values={name: person.values[name] * factor}))
        assert found is not None
        return found

    assert score("hippocampus", 0.8) < score("hippocampus", 1.0) < score("hippocampus", 1.2)
    assert score("lateral_ventricle", 2.0) < score("lateral_ventricle", 1.0) < score("lateral_ventricle", 0.5)
    norm = norms.find("hippocampus", "freesurfer-7.4", 3.0)
    assert norm is not None
    assert score("hippocampus", exp(-2 * norm.sd)) == pytest.approx(score("hippocampus", 1.0) - 2)


def test_head_size_age_and_sex_are_taken_out(norms: Norms) -> None:
    norm = norms.find("hippocampus", "freesurfer-7.4", 3.0)
    assert norm is not None
    for age in (60.0, 90.0):
        for sex in ("female", "male"):
            for icv in (1.2e6, 1.9e6):
                line = norm.intercept + norm.per_year * age + norm.male * (sex == "male") + norm.per_log_icv * log(icv)
                row = NormRow({"hippocampus": exp(line - 1.5 * norm.sd)}, age, sex, icv, "freesurfer-7.4", 3.0)
                assert w_score(norms, "hippocampus", row) == pytest.approx(-1.5)


@pytest.mark.parametrize(
    "change",
    [
        {"segmenter": None},
        {"segmenter": "freesurfer-6.0"},
        {"segmenter": ""},
        {"field_strength_t": 1.5},
        {"field_strength_t": None},
        {"age_years": None},
        {"age_years": 54.9},
        {"age_years": 95.1},
        {"age_years": float("nan")},
        {"sex": None},
        {"sex": "F"},
        {"icv_mm3": None},
        {"icv_mm3": 0.0},
        {"icv_mm3": float("nan")},
        {"values": {}},
        {"values": {"hippocampus": 0.0}},
        {"values": {"hippocampus": -1.0}},
        {"values": {"hippocampus": float("inf")}},
    ],
)
def test_what_cannot_be_compared_is_not_graded(norms: Norms, change: dict[str, Any]) -> None:
    person = control(1000, age_years=75.0)
    assert w_score(norms, "hippocampus", person) is not None
    assert w_score(norms, "hippocampus", replace(person, **change)) is None


def test_unknown_measure_is_not_graded(norms: Norms) -> None:
    assert w_score(norms, "insula", control(1000, values={"insula": 1.0})) is None
    assert w_score(Norms(), "hippocampus", control(1000)) is None


def test_segmenters_and_field_strengths_are_never_mixed() -> None:
    rows = [
        control(
            seed, segmenter=segmenter, field_strength_t=tesla, values={"hippocampus": size * (1 + 0.1 * (seed % 7))}
        )
        for segmenter, tesla, size in (("a", 3.0, 1.0), ("b", 3.0, 10.0), ("a", 1.5, 100.0), ("a", None, 1000.0))
        for seed in range(60)
    ]
    norms = fit_norms([*rows, *(control(seed, segmenter=None) for seed in range(60))], WORSE)
    assert [(norm.measure, norm.segmenter, norm.field_strength_t, norm.controls) for norm in norms.norms] == [
        ("hippocampus", "a", 3.0, 60),
        ("hippocampus", "b", 3.0, 60),
        ("hippocampus", "a", 1.5, 60),
        ("hippocampus", "a", None, 60),
    ]
    alone = fit_norms(rows[60:120], WORSE)
    assert alone.norms == (norms.norms[1],)
    for row in (rows[7], rows[67], rows[127], rows[187]):
        assert w_score(norms, "hippocampus", row) == pytest.approx(w_score(norms, "hippocampus", rows[7]), abs=1e-6)


@pytest.mark.parametrize(
    ("written", "nominal"),
    [(1.494, 1.5), (2.8936, 3.0), (3, 3.0), (6.98, 7.0), (None, None), (0.0, None), (float("nan"), None)],
)
def test_field_strength_as_scanners_write_it(written: float | None, nominal: float | None) -> None:
    assert nominal_tesla(written) == nominal


def test_scanners_that_write_it_differently_share_a_norm(norms: Norms) -> None:
    assert w_score(norms, "hippocampus", control(3, field_strength_t=2.8936)) == w_score(
        norms, "hippocampus", control(3)
    )


def test_too_few_controls_have_no_norm() -> None:
    rows = [control(seed) for seed in range(FEWEST_CONTROLS)]
    assert len(fit_norms(rows, WORSE).norms) == 2
    assert fit_norms(rows[1:], WORSE) == Norms()
    assert len(fit_norms(rows[:20], WORSE, fewest=20).norms) == 2
    assert fit_norms([], WORSE) == Norms()
    # What a row lacks takes it out of its own fit alone.
    (norm,) = fit_norms(
        [replace(rows[0], values={"hippocampus": rows[0].values["hippocampus"]}), *rows[1:]], WORSE
    ).norms
    assert norm.measure == "hippocampus"
    assert fit_norms([replace(rows[0], age_years=None), *rows[1:]], WORSE) == Norms()


def test_fewer_controls_than_coefficients_have_no_norm() -> None:
    rows = [control(seed, sex="male") for seed in range(6)]
    assert fit_norms(rows[:3], WORSE, fewest=1) == Norms()
    assert len(fit_norms(rows, WORSE, fewest=1).norms) == 2


def test_a_norm_of_one_sex_covers_that_sex() -> None:
    rows = [control(seed, sex="female") for seed in range(60)]
    norms = fit_norms([*rows, *(control(seed, sex="male") for seed in range(100, 104))], WORSE)
    assert [(norm.sexes, norm.controls, norm.male) for norm in norms.norms] == [(("female",), 60, 0.0)] * 2
    assert w_score(norms, "hippocampus", control(7, sex="female")) is not None
    assert w_score(norms, "hippocampus", control(7, sex="male")) is None


def test_controls_that_do_not_differ_have_no_norm() -> None:
    assert fit_norms([control(seed, values={"hippocampus": 7000.0}) for seed in range(60)], WORSE) == Norms()


def test_one_age_has_no_slope() -> None:
    norms = fit_norms([control(seed, age_years=70.0) for seed in range(60)], WORSE)
    assert [norm.per_year for norm in norms.norms] == [0.0, 0.0]


def test_norms_are_the_same_after_saving(tmp_path: Path, norms: Norms) -> None:
    file = tmp_path / "norms.json"
    file.write_text(norms.model_dump_json(), encoding="utf-8")
    assert load_norms(str(file)) == norms
    stored = json.loads(file.read_text(encoding="utf-8"))["norms"][0]
    assert {"segmenter", "field_strength_t", "controls", "sd", "youngest_years", "oldest_years"} <= set(stored)


def without_scanner(norm: Norm) -> Norm:
    return norm.model_copy(update={"field_strength_t": None})


def test_norm_of_unknown_scanners_survives_saving(tmp_path: Path, norms: Norms) -> None:
    unknown = Norms(norms=tuple(without_scanner(norm) for norm in norms.norms))
    (tmp_path / "norms.json").write_text(unknown.model_dump_json(), encoding="utf-8")
    assert load_norms(str(tmp_path / "norms.json")) == unknown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sd": 0.0}, "norms.0.sd: .*greater than 0"),
        ({"sd": "0.1"}, "norms.0.sd: .*number"),
        ({"worse": "less"}, "norms.0.worse: .*'low' or 'high'"),
        ({"segmenter": ""}, "norms.0.segmenter: .*at least 1"),
        ({"sexes": []}, "norms.0.sexes: .*at least 1"),
        ({"mean": 1.0}, "norms.0.mean: Extra inputs"),
        ({"measure": "lateral_ventricle"}, "two norms of one measure"),
    ],
)
def test_wrong_norm_file_names_the_field(tmp_path: Path, norms: Norms, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "norms.json"
    raw = norms.model_dump(mode="json")
    raw["norms"][0] |= change
    file.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(NormsError, match=rf"norms\.json: .*{message}"):
        load_norms(str(file))


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"norms": [{}]}', "\xff"])
def test_file_that_is_no_norms(tmp_path: Path, text: str) -> None:
    file = tmp_path / "norms.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(NormsError, match=r"norms\.json"):
        load_norms(str(file))


def test_missing_norm_file(tmp_path: Path) -> None:
    with pytest.raises(NormsError, match=r"no file at .*none\.json. that can be read: FileNotFoundError"):
        load_norms(str(tmp_path / "none.json"))


@pytest.fixture(scope="module")
def parameters() -> PhantomParameters:
    return load_config(PhantomParameters, ROOT / "configs/cohort/phantom.yaml")


def phantom_rows(parameters: PhantomParameters, population: Population, label: str, seed: int, n: int) -> list[NormRow]:
    spec = population.labels[label]
    rows = []
    for index in range(n):
        rng = np.random.default_rng([seed, index])
        severity = rng.normal(spec.severity.mean, spec.severity.sd)
        age = float(np.clip(rng.normal(spec.age_years.mean, spec.age_years.sd), 60, 90))
        sex = "female" if rng.random() < spec.female_share else "male"
        volumes = draw_volumes(parameters, severity, age, sex, rng)
        rows.append(NormRow(volumes, age, sex, volumes["icv"], "phantom", 3.0))
    return rows


def test_w_score_separates_better_than_volume_by_icv_and_that_better_than_volume(
    parameters: PhantomParameters, population: Population
) -> None:
    norms = fit_norms(phantom_rows(parameters, population, "NC", 21, 150), WORSE)
    held_out = [
        row
        for seed, label in ((22, "NC"), (23, "AD"))
        for row in phantom_rows(parameters, population, label, seed, 150)
    ]
    affected = np.repeat([False, True], 150)
    by_score = roc_auc_score(affected, [-float(w_score(norms, "hippocampus", row) or "nan") for row in held_out])
    by_ratio = roc_auc_score(affected, [-row.values["hippocampus"] / float(row.icv_mm3 or 0) for row in held_out])
    by_volume = roc_auc_score(affected, [-row.values["hippocampus"] for row in held_out])
    assert by_score > by_ratio > by_volume
    assert 0.80 < by_score < 0.92


def test_phantoms_have_the_effect_sizes_of_their_sources(parameters: PhantomParameters, population: Population) -> None:
    wanted = {"hippocampus": 1.50, "entorhinal": 1.45, "precuneus": 1.11, "temporal": 1.75, "lateral_ventricle": 0.92}
    worse: dict[str, Worse] = {name: "high" if "ventricle" in name else "low" for name in wanted}
    norms = fit_norms(phantom_rows(parameters, population, "NC", 31, 600), worse)
    for name, effect in wanted.items():
        normal, severe = (
            np.array([w_score(norms, name, row) for row in phantom_rows(parameters, population, label, seed, 800)])
            for seed, label in ((32, "NC"), (33, "AD"))
        )
        cohens_d = (normal.mean() - severe.mean()) / np.sqrt((normal.var() + severe.var()) / 2)
        assert cohens_d == pytest.approx(effect, abs=0.15), name
