"""Checks of rationales: tables of texts for each, the labelled set as a whole, and the project's own rationales."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.benchmarks.checks import FLAGS, load_texts, score
from clinical_reasoner.config.rationales import LengthBounds
from clinical_reasoner.evidence.checks import (
    argues_against,
    check_text,
    concludes_other,
    in_another_language,
    is_too_long,
    is_too_short,
    is_truncated,
    refuses,
    repeats_itself,
    restates_label,
)
from clinical_reasoner.evidence.description import Evidence
from clinical_reasoner.evidence.language import load_language
from clinical_reasoner.llm.prompting import Exemplar
from clinical_reasoner.reference.writer import Wording, write_rationale
from clinical_reasoner.task import DiagnosisTask, TaskError


@pytest.mark.parametrize(
    ("text", "stated", "against"),
    [
        ("The preserved cortex makes this form of dementia unlikely.", "AD", True),
        ("The preserved cortex makes this form of dementia unlikely. It is Alzheimer's disease.", "AD", True),
        ("The findings argue against Alzheimer's disease.", "AD", True),
        ("The findings argue against Alzheimer's disease.", "MCI", False),
        ("This excludes normal cognition.", "NC", True),
        ("Alzheimer's disease can be ruled out.", "AD", True),
        ("Alzheimer's disease cannot be ruled out.", "AD", False),
        ("The MMSE is not consistent with mild cognitive impairment.", "MCI", True),
        ("More consistent with mild cognitive impairment than with Alzheimer's disease.", "AD", True),
        ("The patient does not have dementia.", "AD", True),
        ("I do not think this is Alzheimer's disease.", "AD", True),
        # granted on the way to the diagnosis
        (
            "Although its absence argues against Alzheimer's disease, the rest points to Alzheimer's disease.",
            "AD",
            False,
        ),
        ("One finding speaks against Alzheimer's disease. All others suggest Alzheimer's disease.", "AD", False),
        ("Mild atrophy alone would argue against Alzheimer's disease.", "AD", False),
        ("One copy of APOE4 raises the risk of Alzheimer's disease.", "AD", False),
        ("There is little doubt that this is Alzheimer's disease.", "AD", False),
        ("", "AD", False),
    ],
)
def test_argues_against(task: DiagnosisTask, text: str, stated: str, against: bool) -> None:
    assert argues_against(text, stated, task) == against


@pytest.mark.parametrize(
    ("text", "stated", "other"),
    [
        ("All this points to mild cognitive impairment.", "AD", True),
        ("All this points to mild cognitive impairment.", "MCI", False),
        ("The most likely diagnosis is normal cognition.", "AD", True),
        ("Therefore this patient is cognitively normal.", "MCI", True),
        ("The MMSE suggests normal cognition. The atrophy points to Alzheimer's disease.", "AD", False),
        ("The MMSE suggests normal cognition. The atrophy points to Alzheimer's disease.", "NC", True),
        ("An MMSE of 20 would suggest Alzheimer's disease.", "NC", False),
        ("None of these findings point to Alzheimer's disease.", "NC", False),
        ("It suggests normal cognition at first, yet Alzheimer's disease is the diagnosis.", "AD", False),
        ("One copy of APOE4 raises the risk of Alzheimer's disease.", "NC", False),
        ("", "AD", False),
    ],
)
def test_concludes_another(task: DiagnosisTask, text: str, stated: str, other: bool) -> None:
    assert concludes_other(text, stated, task) == other


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("As the diagnosis is AD, the atrophy is expected.", True),
        ("This is consistent with the given diagnosis.", True),
        ("Given the diagnosis of Alzheimer's disease, the MMSE is low.", True),
        ("Since she has Alzheimer's disease, the MMSE is low.", True),
        ("The patient was diagnosed with mild cognitive impairment.", True),
        ("The correct answer is normal cognition.", True),
        ("The findings support the diagnosis of Alzheimer's disease.", False),
        ("The findings are consistent with a diagnosis of Alzheimer's disease.", False),
        ("Given the severe atrophy, Alzheimer's disease is likely.", False),
        ("Since she has severe atrophy, the diagnosis is Alzheimer's disease.", False),
    ],
)
def test_restates_the_label(task: DiagnosisTask, text: str, leaks: bool) -> None:
    assert restates_label(text, task) == leaks


def test_only_a_rationale_that_was_told_can_leak(task: DiagnosisTask) -> None:
    text = "As the diagnosis is AD, severe hippocampal atrophy is to be expected here."
    assert check_text(text, "AD", True, task, LengthBounds()) == ("label_leak",)
    assert check_text(text, "AD", False, task, LengthBounds()) == ()


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("severe severe severe severe", True),
        ("very, very severe", False),
        ("The MMSE is 20 and the MMSE is 20 and the MMSE is 20 and", True),
        ("There is no atrophy. There is no atrophy. There is no atrophy.", True),
        ("There is no atrophy. The MMSE is 29. There is no atrophy. She is 78. There is no atrophy.", True),
        ("no frontal atrophy, no temporal atrophy, no parietal atrophy and no occipital atrophy", False),
        ("There is no atrophy. So again: there is no atrophy.", False),
        ("", False),
    ],
)
def test_repeats_itself(text: str, repeats: bool) -> None:
    assert repeats_itself(text) == repeats


@pytest.mark.parametrize(
    ("text", "truncated"),
    [
        ("The MMSE is 20.", False),
        ("The MMSE is 20. **", False),
        ('It is "mild."', False),
        ("(The MMSE is 20.)", False),
        ("The MMSE is 20", True),
        ("The MMSE is 20, and", True),
        ("The MMSE is ...", True),
        ("The MMSE is 20. Severe", True),
        ("", True),
    ],
)
def test_truncated(text: str, truncated: bool) -> None:
    assert is_truncated(text) == truncated


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("The patient has severe hippocampal atrophy, and the MMSE is low.", False),
        ("MMSE 20/30: moderate impairment. Hippocampus: severe atrophy. Amygdala: severe atrophy.", False),
        ("Severe hippocampal atrophy.", False),
        ("Der Patient hat eine schwere Atrophie des Hippocampus, und der MMSE ist niedrig.", True),
        ("Le patient pr\u00e9sente une atrophie s\u00e9v\u00e8re de l'hippocampe et un score bas au MMSE.", True),
        ("The MMSE is low. Die Atrophie des Hippocampus ist schwer und passt dazu.", True),
        ("\u0423 \u043f\u0430\u0446\u0438\u0435\u043d\u0442\u0430 \u0430\u0442\u0440\u043e\u0444\u0438\u044f.", True),
        ("The MMSE is low. \u60a3\u8005\u6d77\u9a6c\u4e25\u91cd\u840e\u7f29\u6240\u4ee5", True),
        ("", False),
    ],
)
def test_another_language(task: DiagnosisTask, text: str, foreign: bool) -> None:
    assert in_another_language(text, task) == foreign


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I cannot provide a diagnosis.", True),
        ("I can\u2019t diagnose this patient.", True),
        ("As an AI language model, I have no view on this.", True),
        ("I'm sorry, but this is beyond me.", True),
        ("There is not enough information to make a diagnosis.", True),
        ("MRI alone cannot provide a diagnosis.", False),
        ("I cannot overlook the severe atrophy.", False),
        ("The patient declined to answer two items.", False),
    ],
)
def test_refuses(task: DiagnosisTask, text: str, refused: bool) -> None:
    assert refuses(text, task) == refused


def test_length_is_counted_in_words() -> None:
    text = "A 76-year-old woman's MMSE, 20/30."
    assert not is_too_short(text, 6) and is_too_short(text, 7)
    assert not is_too_long(text, 6) and is_too_long(text, 5)


def test_figures_on_the_labelled_texts(task: DiagnosisTask) -> None:
    labelled = load_texts()
    assert len(labelled.texts) >= 150
    assert {text.patient for text in labelled.texts} == set(labelled.patients)
    scores = score(labelled, task)
    for flag in FLAGS:
        assert scores.right[flag] >= 5, flag
        assert scores.precision(flag) >= 0.95 and scores.recall(flag) >= 0.95, flag


@given(data=st.data())
def test_no_good_rationale_of_the_reference_teacher_is_flagged(
    task: DiagnosisTask, wording: Wording, drawn_evidence: list[Evidence], data: st.DataObject
) -> None:
    whole = drawn_evidence[data.draw(st.integers(0, len(drawn_evidence) - 1))]
    kept = data.draw(st.sets(st.sampled_from(sorted([*whole.fields, *whole.grades])), min_size=1))
    evidence = Evidence(
        {name: value for name, value in whole.fields.items() if name in kept},
        {name: grade for name, grade in whole.grades.items() if name in kept},
    )
    label = data.draw(st.sampled_from(task.label_names))
    text = write_rationale(evidence, label, task, wording, Random(data.draw(st.integers(0, 99))))
    assert check_text(text, label, True, task, LengthBounds()) == ()


def test_no_exemplar_is_flagged(task: DiagnosisTask, exemplars: tuple[Exemplar, ...]) -> None:
    for exemplar in exemplars:
        assert check_text(exemplar.rationale, exemplar.label, True, task, LengthBounds()) == ()


@given(text=st.text(max_size=200), told=st.booleans())
def test_any_text_can_be_checked(task: DiagnosisTask, text: str, told: bool) -> None:
    check_text(text, "AD", told, task, LengthBounds())


def test_language_that_there_is_not() -> None:
    with pytest.raises(TaskError, match="'xx': no such file among the languages; there are: en"):
        load_language("xx")


@pytest.mark.parametrize(
    "text", ["Alzheimer'\u017f di\u017fea\u017fe is unlikely.", "M\u0130LD COGN\u0130T\u0130VE \u0130MPA\u0130RMENT."]
)
def test_letters_that_only_patterns_fold_raise_nothing(text: str, task: DiagnosisTask) -> None:
    check_text(text, "AD", True, task, LengthBounds())
