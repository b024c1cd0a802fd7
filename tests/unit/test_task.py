"""A task file: what it must hold, how its errors read, and how diagnoses are recognised."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clinical_reasoner.errors import UserError
from clinical_reasoner.task import DiagnosisTask, TaskError, load_task

Raw = dict[str, Any]

TASK: Raw = {
    "name": "stones",
    "title": "Stone or no stone",
    "role": "a urologist",
    "question": "Is there a stone?",
    "exemplars": "exemplars.json",
    "labels": [
        {"name": "S", "option": "A", "text": "kidney stone", "aliases": ["calculus"]},
        {"name": "N", "option": "B", "text": "no stone"},
    ],
    "grades": [{"name": "No", "words": ["no"]}, {"name": "Some", "words": ["some"]}],
    "sentences": [[{"name": "age_years", "kind": "number", "clause": "is {value} years old", "whole": True}]],
    "findings_heading": "CT:",
    "findings": [{"name": "dilation", "term": "dilation of the ureter"}],
}


def changed(change: Callable[[Raw], object]) -> Raw:
    raw = copy.deepcopy(TASK)
    change(raw)
    return raw


def test_another_disease_is_only_another_file(tmp_path: Path) -> None:
    file = tmp_path / "stones.yaml"
    file.write_text(yaml.safe_dump(TASK), encoding="utf-8")
    task = load_task(str(file))
    assert task.label_names == ("S", "N")
    assert task.options == ("A", "B")
    assert task.grade_names == ("No", "Some")
    assert [field.name for field in task.fields] == ["age_years"]
    assert task.question_text() == "Is there a stone? (A) kidney stone (B) no stone"
    assert task.answer_text("N") == "(B) no stone"
    with pytest.raises(KeyError, match="label 'AD' is not one of S, N"):
        task.label("AD")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda raw: raw.update(questions="?"), "questions: Extra inputs"),
        (lambda raw: raw.pop("question"), "question: Field required"),
        (lambda raw: raw["labels"].pop(), "labels: .*at least 2"),
        (lambda raw: raw["labels"][0].update(option="a"), "labels.0.option: "),
        (lambda raw: raw["labels"][1].update(option="A"), "option 'A' stands there twice"),
        (lambda raw: raw["labels"][1].update(name="S"), "label 'S' stands there twice"),
        (lambda raw: raw["grades"][1].update(name="No"), "grade 'No' stands there twice"),
        (lambda raw: raw["findings"].append(raw["findings"][0]), "finding 'dilation' stands there twice"),
        (lambda raw: raw["sentences"].append(raw["sentences"][0]), "field 'age_years' stands there twice"),
        (lambda raw: raw["sentences"][0][0].update(clause="is old"), "sentences.0.0.number.clause: "),
        (lambda raw: raw["sentences"][0][0].update(kind="text"), "sentences.0.0: .*'number', 'choice'"),
        (lambda raw: raw["findings"][0].update(change="width"), "change 'width' is not one of `changes`"),
        # YAML reads an unquoted `No` as false.
        (lambda raw: raw["grades"][0].update(name=False), "grades.0.name: "),
    ],
)
def test_unusable_task_file_names_file_and_place(tmp_path: Path, change: Callable[[Raw], object], place: str) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(yaml.safe_dump(changed(change)), encoding="utf-8")
    with pytest.raises(TaskError, match=rf"task\.yaml: .*{place}"):
        load_task(str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [("labels: [", "not readable as YAML"), ("- a\n- b\n", r"\(whole file\)"), ("", "whole file")],
)
def test_file_that_is_no_task(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(TaskError, match=message):
        load_task(str(file))


def test_missing_file_is_an_error_that_the_user_can_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task\.file: no file at .*none\.yaml"):
        load_task(str(tmp_path / "none.yaml"))


def test_task_is_frozen_and_a_key(task: DiagnosisTask) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        task.name = "other"  # type: ignore[misc]
    same_name = task.model_copy(update={"title": "something else"})
    assert hash(same_name) == hash(task)
    assert same_name != task


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("AD", "AD"),
        ("ad", "AD"),
        ("A", "AD"),
        ("(b)", "MCI"),
        ("C)", "NC"),
        ("Alzheimer's disease", "AD"),
        ("Alzheimer\u2019s disease", "AD"),
        ("ALZHEIMER'S DISEASE.", "AD"),
        (" mild   cognitive\nimpairment ", "MCI"),
        ("Mild cognitive impairment (MCI)", "MCI"),
        ("(C) normal cognition", "NC"),
        ("(C) cognitively normal", "NC"),
        ("CN", "NC"),
        ("(A) normal cognition", None),
        ("D", None),
        ("(D) delirium", None),
        ("mild", None),
        ("not AD", None),
        ("AD or MCI", None),
        ("", None),
        ("()", None),
    ],
)
def test_reading_a_diagnosis_as_people_write_it(task: DiagnosisTask, text: str, label: str | None) -> None:
    assert task.read_label(text) == label


def test_every_name_of_every_label_is_read_as_that_label(task: DiagnosisTask) -> None:
    for label in task.labels:
        for name in (label.name, label.text, label.option, *label.aliases, task.answer_text(label.name)):
            assert task.read_label(name) == label.name
            assert task.read_label(name.upper()) == label.name or name == task.answer_text(label.name)


@given(text=st.text(max_size=40))
def test_reading_any_text_gives_a_label_or_none(task: DiagnosisTask, text: str) -> None:
    assert task.read_label(text) in {*task.label_names, None}
