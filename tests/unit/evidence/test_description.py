"""The description says what is known, nothing else, and can be read back."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.config.columns import EducationLevel
from clinical_reasoner.evidence.description import (
    Evidence,
    check_task_fields,
    describe,
    describe_evidence,
    evidence_of,
    join_words,
    parse_description,
    seen_description,
    statement,
    with_question,
    without_question,
)
from clinical_reasoner.llm.prompting import Exemplar
from clinical_reasoner.records import PatientRow
from clinical_reasoner.task import DiagnosisTask, TaskError
from tests.unit.conftest import Golden


def patient(**fields: Any) -> PatientRow:
    return PatientRow(patient_id="p", visit_id="bl", cohort="c", split="test", **fields)


patients = st.builds(
    patient,
    age_years=st.none() | st.floats(0, 130),
    sex=st.sampled_from([None, "female", "male"]),
    education_years=st.none() | st.integers(0, 40) | st.integers(0, 400).map(lambda tenths: tenths / 10),
    marital_status=st.sampled_from([None, "married", "widowed", "divorced", "never_married"]),
    mmse=st.none() | st.integers(0, 30),
    apoe4_copies=st.none() | st.integers(0, 2),
    education_level=st.sampled_from([None, *get_args(EducationLevel)]),
    at_least=st.sampled_from([(), ("age_years",)]),
)


def graded(task: DiagnosisTask) -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(
        st.sampled_from([finding.name for finding in task.findings]), st.sampled_from(task.grade_names)
    )


FULL: dict[str, Any] = {
    "age_years": 74.9,
    "sex": "female",
    "education_years": 12.5,
    "marital_status": "never_married",
    "mmse": 24,
    "apoe4_copies": 1,
}
GRADES = {"vascular_disease": "No", "hippocampal_atrophy": "Severe", "relative_parietal_atrophy": "Mild"}


def test_golden_description(task: DiagnosisTask, golden: Golden) -> None:
    grades = {finding.name: task.grade_names[index % 3] for index, finding in enumerate(task.findings)}
    golden("description_full.txt", describe(patient(**FULL), grades, task))


def test_golden_description_with_missing_values(task: DiagnosisTask, golden: Golden) -> None:
    gaps = {name: FULL[name] for name in ("sex", "mmse")}
    golden("description_gaps.txt", describe(patient(**gaps), GRADES, task))


@given(data=st.data())
def test_what_is_described_is_read_back(task: DiagnosisTask, data: st.DataObject) -> None:
    one, grades = data.draw(patients), data.draw(graded(task))
    evidence = evidence_of(one, grades, task)
    text = describe(one, grades, task)
    assert text == describe_evidence(evidence, task)
    assert parse_description(text, task) == evidence
    assert describe_evidence(parse_description(text, task), task) == text
    for field in task.fields:
        assert (field.name in evidence.fields) == (getattr(one, field.name) is not None)
    assert evidence.grades == grades


@given(data=st.data())
def test_missing_value_has_no_words(task: DiagnosisTask, data: st.DataObject) -> None:
    grades = data.draw(graded(task))
    text = describe(patient(), grades, task)
    assert "The patient" not in text
    assert text.count("\n") == (len(grades) + 2 if grades else 0)
    assert text.endswith(task.question_text())
    assert "None" not in text


def test_no_evidence_is_the_question_alone(task: DiagnosisTask) -> None:
    assert describe(patient(), {}, task) == task.question_text()
    assert parse_description(task.question_text(), task) == Evidence({}, {})


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("age_years", ["74"], "is 74 years old"),
        ("age_years", ["90+"], "is 90 years or older"),
        ("sex", ["female"], "is a woman"),
        ("marital_status", ["widowed", "divorced"], "is widowed or is divorced"),
        ("hippocampal_atrophy", ["Severe"], "Severe hippocampal atrophy"),
        ("hippocampal_atrophy", ["No", "Mild"], "No or Mild hippocampal atrophy"),
    ],
)
def test_one_value_in_the_words_of_a_description(task: DiagnosisTask, name: str, values: list[str], text: str) -> None:
    assert statement(name, values, task) == text


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("age_years", 74.9, "74"),
        ("age_years", 74.0, "74"),
        ("education_years", 12.0, "12"),
        ("education_years", 12.5, "12.5"),
        ("education_years", 0.0, "0"),
        ("mmse", 0, "0"),
        ("apoe4_copies", 0, "0"),
        ("sex", "male", "male"),
    ],
)
def test_value_as_it_is_written(task: DiagnosisTask, field: str, value: Any, text: str) -> None:
    assert evidence_of(patient(**{field: value}), {}, task).fields == {field: text}


@pytest.mark.parametrize(
    ("age", "value", "clause"),
    [
        (90.0, "90+", "is 90 years or older"),
        (89.0, "89+", "is 89 years or older"),
        (90.4, "90+", "is 90 years or older"),
    ],
)
def test_age_that_stands_for_itself_and_everything_above(
    task: DiagnosisTask, age: float, value: str, clause: str
) -> None:
    text = describe(patient(age_years=age, at_least=("age_years",), sex="female"), {}, task)
    assert text.startswith(f"The patient {clause} and is a woman.")
    assert parse_description(text, task).fields == {"age_years": value, "sex": "female"}
    assert describe_evidence(parse_description(text, task), task) == text
    assert parse_description(describe(patient(age_years=age), {}, task), task).fields == {"age_years": value[:-1]}


def test_bound_of_a_value_that_is_unknown_is_none(task: DiagnosisTask) -> None:
    assert evidence_of(patient(at_least=("age_years",)), {}, task).fields == {}


@pytest.mark.parametrize("level", get_args(EducationLevel))
def test_level_of_education_in_words(task: DiagnosisTask, level: str) -> None:
    text = describe(patient(sex="male", education_level=level), {}, task)
    assert "years of education" not in text and "_" not in text
    assert parse_description(text, task).fields == {"sex": "male", "education_level": level}


def test_findings_are_in_the_order_of_the_task(task: DiagnosisTask) -> None:
    evidence = evidence_of(patient(), GRADES, task)
    assert list(evidence.grades) == ["hippocampal_atrophy", "relative_parietal_atrophy", "vascular_disease"]


@pytest.mark.parametrize(
    ("grades", "message"),
    [
        ({"insular_atrophy": "No"}, "finding 'insular_atrophy' is not in the vocabulary of task 'alzheimers'"),
        ({"frontal_atrophy": "no"}, "grade 'no' of frontal_atrophy is not one of No, Mild, Severe"),
    ],
)
def test_unknown_evidence_is_refused(task: DiagnosisTask, grades: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        describe(patient(), grades, task)


def test_value_without_a_clause_is_refused(task: DiagnosisTask) -> None:
    raw = task.model_dump()
    (marital,) = (field for sentence in raw["sentences"] for field in sentence if field["name"] == "marital_status")
    del marital["clauses"]["divorced"]
    with pytest.raises(ValueError, match=r"marital_status: only married, .* have a clause in task") as error:
        describe(patient(marital_status="divorced"), {}, DiagnosisTask.model_validate(raw))
    assert "divorced" not in str(error.value)


def test_fields_of_the_shipped_task_are_columns(task: DiagnosisTask) -> None:
    check_task_fields(task, "alzheimers.yaml")


def number(name: str) -> dict[str, Any]:
    return {"name": name, "kind": "number", "clause": "has {value}"}


def choice(name: str, *values: str) -> dict[str, Any]:
    return {"name": name, "kind": "choice", "clauses": {value: f"is {value}" for value in values}}


@pytest.mark.parametrize("field", [number("apoe4_copies"), choice("apoe4_copies", "0", "1", "2", "3"), number("mmse")])
def test_field_that_can_be_described(task: DiagnosisTask, field: dict[str, Any]) -> None:
    raw = task.model_dump() | {"sentences": [[field]]}
    check_task_fields(DiagnosisTask.model_validate(raw), "task.yaml")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (number("moca"), "'moca': no column of numbers"),
        (number("sex"), "'sex': no column of numbers"),
        (number("measures"), "'measures': no column of numbers"),
        (choice("smoker", "yes", "no"), "'smoker': no column with a choice of values"),
        (choice("age_years", "70"), "'age_years': no column with a choice of values"),
        (choice("sex", "male"), "'sex': no clause for the value 'female'"),
        (choice("apoe4_copies", "0", "1"), "'apoe4_copies': no clause for the value '2'"),
        # What must never be told: who it is, and what the answer is.
        (choice("patient_id", "p"), "'patient_id': no column"),
        (choice("label", "AD"), "'label': no column"),
        (choice("split", "train", "validation", "test"), "'split': no column"),
    ],
)
def test_field_that_cannot_is_named_with_its_file(task: DiagnosisTask, field: dict[str, Any], message: str) -> None:
    raw = task.model_dump() | {"sentences": [[number("mmse")], [field]]}
    with pytest.raises(TaskError, match=rf"^task\.yaml: field {message}"):
        check_task_fields(DiagnosisTask.model_validate(raw), "task.yaml")


MILD_TEMPORAL = {"temporal_atrophy": "Mild"}


@pytest.mark.parametrize(
    ("text", "fields", "grades"),
    [
        ("The patient is a woman.", {"sex": "female"}, {}),
        ("The patient is a man and is married.", {"sex": "male", "marital_status": "married"}, {}),
        ("Severe hippocampal atrophy", {}, {"hippocampal_atrophy": "Severe"}),
        ("MRI:\n- Mild temporal atrophy.\n* No frontal atrophy", {}, {**MILD_TEMPORAL, "frontal_atrophy": "No"}),
        ("Mild medial temporal atrophy.", {}, {"medial_temporal_atrophy": "Mild"}),
        (
            "Mild medial temporal atrophy relative to the whole cortex.",
            {},
            {"relative_medial_temporal_atrophy": "Mild"},
        ),
        ("The patient has 12.5 years of education.", {"education_years": "12.5"}, {}),
        ("A pleasant lady of 74 with memory complaints.", {}, {}),
        ("", {}, {}),
    ],
)
def test_reading_ready_descriptions(
    task: DiagnosisTask, text: str, fields: dict[str, str], grades: dict[str, str]
) -> None:
    assert parse_description(text, task) == Evidence(fields, grades)


@given(text=st.text())
def test_any_text_can_be_read_and_gets_one_question(task: DiagnosisTask, text: str) -> None:
    parse_description(text, task)
    once = with_question(text, task)
    assert with_question(once, task) == once or not text.strip()
    assert once.endswith(task.question_text())
    assert task.question_text() not in without_question(once, task)


@given(data=st.data())
def test_who_sees_the_picture_alone_reads_nothing_of_the_patient(task: DiagnosisTask, data: st.DataObject) -> None:
    text = describe(data.draw(patients), data.draw(graded(task)), task)
    assert seen_description(text, True, task) == text
    seen = seen_description(text, False, task)
    assert seen == f"The MRI of the patient is shown in the picture.\n\n{task.question_text()}"
    assert parse_description(seen, task) == Evidence({}, {})


def test_exemplars_are_in_the_words_of_the_task(task: DiagnosisTask, exemplars: tuple[Exemplar, ...]) -> None:
    for exemplar in exemplars:
        evidence = parse_description(exemplar.description, task)
        # Education in years, so not as a level as well.
        assert {field.name for field in task.fields} - evidence.fields.keys() == {"education_level"}
        assert len(evidence.grades) == len(task.findings)
        assert describe_evidence(evidence, task) == exemplar.description


@pytest.mark.parametrize(("words", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_joined_words(words: list[str], text: str) -> None:
    assert join_words(words) == text
    assert join_words(words, "or") == text.replace("and", "or")
