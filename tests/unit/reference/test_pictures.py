"""Phantoms of the reference vision-language model, as the stages measure, grade and show them, and the text of them."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.reference import VisionReferenceConfig
from clinical_reasoner.evidence.claims import ClaimCounts, count_claims, extract_claims
from clinical_reasoner.evidence.description import parse_description
from clinical_reasoner.imaging.phantom_cohort import draw_phantom
from clinical_reasoner.imaging.views import views_picture
from clinical_reasoner.llm.answers import Answer, parse_answer
from clinical_reasoner.reference.corpus import CorpusSpec
from clinical_reasoner.reference.picture_text import TOLD_SHARES, ask_chats, finding_chats
from clinical_reasoner.reference.pictures import (
    Phantoms,
    PhantomSpec,
    Read,
    draw_phantoms,
    fit_phantom_norms,
    read_phantoms,
)
from clinical_reasoner.reference.vlm_build import specs

ROOT = Path(__file__).parents[3]
COUNT, SEED, CHATS = 60, 31, 300
Specs = tuple[PhantomSpec, CorpusSpec]


@pytest.fixture(scope="module")
def both() -> Specs:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return specs(load_config(VisionReferenceConfig, "configs/reference/vlm.yaml"))


@pytest.fixture(scope="module")
def phantoms(both: Specs) -> Phantoms:
    return draw_phantoms(both[0], SEED, COUNT)


@pytest.fixture(scope="module")
def read(both: Specs, phantoms: Phantoms) -> Read:
    return read_phantoms(phantoms.patients, fit_phantom_norms(phantoms, both[0], 10), both[0])


def test_phantoms_are_those_of_a_cohort(both: Specs, phantoms: Phantoms) -> None:
    for index in (0, COUNT - 1):
        one = draw_phantom(both[0].population, both[0].parameters, SEED, index)
        assert phantoms.patients[index].patient_id == one.patient.patient_id
        found = {measure.name: measure.value for measure in phantoms.patients[index].measures}
        assert {name: found[name] for name in one.volumes} == pytest.approx(one.volumes, rel=0.005)
        np.testing.assert_array_equal(phantoms.pictures[index], views_picture(one.t1, one.labels, one.affine))


def test_grades_are_those_of_the_w_scores(both: Specs, read: Read) -> None:
    names = [finding.name for finding in both[0].task.findings]
    graded = [(one, row) for one, row in zip(read.evidence, read.w_scores, strict=True) if one.grades]
    assert 0.8 * COUNT < len(graded) < COUNT, "without age or sex there is no w-score"
    for one, row in graded:
        assert list(one.grades) == [name for name, w in zip(names, row, strict=True) if not np.isnan(w)]
        assert one.grades["hippocampal_atrophy"] == ("Severe" if row[0] <= -2 else "Mild" if row[0] <= -1 else "No")


def test_answers_about_pictures_are_true_to_them(both: Specs, read: Read) -> None:
    chats = list(islice(finding_chats(both[1], read.evidence), CHATS))
    assert chats[:20] == list(islice(finding_chats(both[1], read.evidence), 20))
    told = Counter[str]()
    for case, messages in chats:
        assert [part["type"] for part in messages[0]["content"]] == ["image", "text"]
        claims = extract_claims(messages[-1]["content"], both[1].task)
        assert count_claims(claims, read.evidence[case]) == ClaimCounts(supported=len(claims)) and len(claims) > 8
        described = parse_description(messages[0]["content"][1]["text"], both[1].task)
        told["all" if described.grades else "fields" if described.fields else "nothing"] += 1
    assert {name: count / CHATS for name, count in told.items()} == pytest.approx(TOLD_SHARES, abs=0.1)


def test_diagnoses_in_the_asks_are_independent_of_the_patient(both: Specs, phantoms: Phantoms, read: Read) -> None:
    task = both[1].task
    same = asked = 0
    for case, messages in islice(ask_chats(both[1], read.evidence), CHATS):
        assert [message["role"] for message in messages] == ["system", "user", "assistant"]
        answers = [parse_answer(messages[-1]["content"], ask, task) for ask in ("diagnose", "direct")]
        labels = {answer.label for answer in answers if isinstance(answer, Answer)}
        asked += bool(labels)
        same += phantoms.patients[case].label in labels
    assert asked > 0.6 * CHATS
    assert abs(same / asked - 1 / 3) < 4 * (2 / 9 / asked) ** 0.5
