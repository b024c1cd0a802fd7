"""The Bayes rule of bodies: calibrated, and not beaten by a model that was trained on the same volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.imaging.phantom_bayes import PhantomBayesRule
from clinical_reasoner.imaging.phantom_cohort import draw_body
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.records import PatientRow

CONFIGS = Path(__file__).parents[3] / "configs/cohort"
DRAWN, TRAINED, SEED = 1500, 1000, 5
Body = tuple[PatientRow, dict[str, float]]


@pytest.fixture(scope="module")
def parameters() -> PhantomParameters:
    return load_config(PhantomParameters, CONFIGS / "phantom.yaml")


@pytest.fixture(scope="module")
def bodies(population: Population, parameters: PhantomParameters) -> list[Body]:
    complete = population.model_copy(update={"missing_share": 0.0})
    return [draw_body(complete, parameters, SEED, index)[:2] for index in range(DRAWN)]


@pytest.fixture(scope="module")
def posteriors(population: Population, parameters: PhantomParameters, bodies: list[Body]) -> np.ndarray:
    """Given the volumes, age and sex alone."""
    rule = PhantomBayesRule(population, parameters)
    return np.array([rule.posterior({}, volumes, who.age_years, who.sex) for who, volumes in bodies])


def labels_of(bodies: list[Body]) -> np.ndarray:
    return np.array([who.label for who, _ in bodies])


def test_it_is_as_often_right_as_it_says(population: Population, bodies: list[Body], posteriors: np.ndarray) -> None:
    assert posteriors.sum(axis=1) == pytest.approx(1)
    labels = labels_of(bodies)
    for column, name in enumerate(population.labels):
        said, was = posteriors[:, column], labels == name
        for among in np.array_split(np.argsort(said), 5):
            error = np.sqrt((said * (1 - said))[among].sum()) / len(among)
            assert abs(said[among].mean() - was[among].mean()) < 4 * error, name


def test_no_trained_model_is_better(population: Population, bodies: list[Body], posteriors: np.ndarray) -> None:
    features = np.array(
        [[*np.log(list(volumes.values())), who.age_years or 0.0, float(who.sex == "male")] for who, volumes in bodies]
    )
    labels, names = labels_of(bodies), np.array(list(population.labels))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(features[:TRAINED], labels[:TRAINED])
    learnt = (model.predict(features[TRAINED:]) == labels[TRAINED:]).mean()
    known = (names[posteriors[TRAINED:].argmax(axis=1)] == labels[TRAINED:]).mean()
    assert 0.45 < learnt < known + 0.03 and known > 0.5


def test_volumes_count_only_where_they_can_be_graded(
    population: Population, parameters: PhantomParameters, bodies: list[Body]
) -> None:
    rule = PhantomBayesRule(population, parameters)
    (who, volumes), fields = bodies[0], {"mmse": "27"}
    blind = rule.posterior(fields, {}, who.age_years, who.sex)
    assert rule.posterior(fields, volumes, None, who.sex) == pytest.approx(blind)
    assert rule.posterior(fields, volumes, who.age_years, None) == pytest.approx(blind)
    assert rule.posterior(fields, volumes, who.age_years, who.sex) != pytest.approx(blind, abs=1e-3)
