"""The numbers about a cohort: what is counted, what is hidden, and that nothing tells who someone is."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_reasoner.evaluation.cohort_counts import age_band
from clinical_reasoner.evaluation.cohort_summary import CohortSummary, summarise_cohort
from clinical_reasoner.evaluation.small_cells import SMALLEST, Count, hide_small
from clinical_reasoner.records import (
    FINDINGS,
    MEASURES,
    PATIENTS,
    REJECTED,
    FindingsRow,
    FindingValue,
    MeasuresRow,
    PatientRow,
    RejectedRow,
    to_table,
)
from clinical_reasoner.task import DiagnosisTask

SYNTHETIC, REAL = "synthetic-test", "memory-clinic"


def patient(number: int, label: str | None = "NC", **fields: Any) -> PatientRow:
    usual = {"patient_id": f"CANARY-{number:04d}", "visit_id": "bl", "cohort": SYNTHETIC, "split": "train"}
    return PatientRow.model_validate({**usual, "label": label, "age_years": 70.0, "sex": "female", **fields})


def findings_row(visit: PatientRow, w: dict[str, float | None], **fields: Any) -> FindingsRow:
    graded = tuple(FindingValue(name=name, w_score=value, grade="No", source="test") for name, value in w.items())
    keys = {name: getattr(visit, name) for name in ("patient_id", "visit_id", "split", "label")}
    return FindingsRow(**keys, findings=graded, description=f"About a {visit.label}.", **fields)


def rejected_rows(stage: str, *reasons: str) -> pa.Table:
    rows = [RejectedRow(source=f"CANARY.csv:{line}", stage=stage, reason=why) for line, why in enumerate(reasons)]
    return to_table(rows, REJECTED)


def summary_of(
    task: DiagnosisTask, patients: list[PatientRow], findings: list[FindingsRow] | None = None, **more: Any
) -> CohortSummary:
    rows = [findings_row(one, {}) for one in patients if one.label] if findings is None else findings
    rejected = more.pop("rejected", {})
    return summarise_cohort(to_table(patients, PATIENTS), to_table(rows, FINDINGS), rejected, task, **more)


def rows_of(summary: CohortSummary, title: str) -> dict[str, tuple[tuple[Count, ...], int]]:
    group = next(group for group in summary.groups if group.title.startswith(title))
    return {row.name: (row.counts, row.total) for row in group.rows}


def test_visits_and_people_are_counted_by_label(task: DiagnosisTask) -> None:
    patients = [
        patient(1, "AD"),
        patient(1, "AD", visit_id="m12"),
        patient(2, "MCI"),
        patient(2, "AD", visit_id="m12"),
        patient(3, "NC"),
        patient(4, None),
    ]
    summary = summary_of(task, patients)
    assert summary.labels == ("AD", "MCI", "NC", "no diagnosis")
    assert (summary.visits, summary.people, summary.described) == (6, 4, 5)
    assert rows_of(summary, "In all") == {
        "visits": ((3, 1, 1, 1), 6),
        "people": ((2, 1, 1, 1), 4),
        "visits with findings": ((3, 1, 1, 0), 5),
    }
    assert [(row.name, row.count) for row in summary.visits_per_person] == [("1", 2), ("2", 2)]


def test_visits_by_sex_age_and_split(task: DiagnosisTask) -> None:
    patients = [
        patient(1, "AD", sex=None, age_years=None, split="test"),
        patient(2, "AD", sex="male", age_years=64.9),
        patient(3, "NC", age_years=65.0, split="validation"),
        patient(4, "NC", age_years=90.0, at_least=("age_years",)),
    ]
    summary = summary_of(task, patients)
    assert rows_of(summary, "Sex") == {
        "female": ((0, 0, 2), 2),
        "male": ((1, 0, 0), 1),
        "unknown": ((1, 0, 0), 1),
    }
    assert rows_of(summary, "Age") == {
        "under 65": ((1, 0, 0), 1),
        "65-74": ((0, 0, 1), 1),
        "75-84": ((0, 0, 0), 0),
        "85 and older": ((0, 0, 1), 1),
        "unknown": ((1, 0, 0), 1),
    }
    assert rows_of(summary, "Split") == {
        "train": ((1, 0, 1), 2),
        "validation": ((0, 0, 1), 1),
        "test": ((1, 0, 0), 1),
    }
    assert "unknown" not in rows_of(summary_of(task, [patient(1)]), "Sex")


@pytest.mark.parametrize(
    ("age", "or_more", "band"),
    [
        (None, False, "unknown"),
        (0.0, False, "under 65"),
        (64.99, False, "under 65"),
        (65.0, False, "65-74"),
        (74.99, False, "65-74"),
        (75.0, False, "75-84"),
        (84.99, False, "75-84"),
        (85.0, False, "85 and older"),
        (130.0, False, "85 and older"),
        (90.0, True, "85 and older"),
        (80.0, True, "unknown"),
    ],
)
def test_age_bands(age: float | None, or_more: bool, band: str) -> None:
    assert age_band(age, or_more) == band


def test_visits_per_person_in_classes(task: DiagnosisTask) -> None:
    numbers = {1: 1, 2: 4, 3: 5, 4: 9, 5: 10, 6: 30}
    patients = [patient(who, visit_id=f"v{v}") for who, visits in numbers.items() for v in range(visits)]
    summary = summary_of(task, patients)
    assert [(row.name, row.count) for row in summary.visits_per_person] == [
        ("1", 1),
        ("4", 1),
        ("5-9", 2),
        ("10 or more", 2),
    ]


def test_missing_fields_and_findings(task: DiagnosisTask) -> None:
    patients = [patient(1, mmse=28), patient(2, mmse=30, sex=None), patient(3, None), patient(4)]
    rows = [
        findings_row(patients[0], {"hippocampal_atrophy": -1.0}),
        findings_row(patients[1], {}),
        findings_row(patients[2], {"hippocampal_atrophy": None, "vascular_disease": 0.5}),
    ]
    summary = summary_of(task, patients, rows)
    fields = {one.name: (one.missing, one.visits) for one in summary.missing_fields}
    assert list(fields) == ["label", *(field.name for field in task.fields)]
    assert (fields["label"], fields["sex"], fields["mmse"], fields["apoe4_copies"]) == ((1, 4), (1, 4), (2, 4), (4, 4))
    found = {one.name: (one.missing, one.visits) for one in summary.missing_findings}
    assert list(found) == [finding.name for finding in task.findings]
    assert (found["hippocampal_atrophy"], found["vascular_disease"]) == ((1, 3), (2, 3))
    assert found["amygdala_atrophy"] == (3, 3)
    assert [one.title for one in summary.missing_fields][:4] == ["diagnosis", "age (years)", "sex", "education (years)"]
    assert summary.missing_findings[0].title == "hippocampal atrophy"


def test_w_scores_by_label(task: DiagnosisTask) -> None:
    scores = {"AD": np.linspace(-4, -1, 40), "NC": np.linspace(-2, 2, 21)}
    patients = [patient(place, label) for label in scores for place in range(len(scores[label]))]
    values = [float(value) for label in scores for value in scores[label]]
    rows = [
        findings_row(one, {"hippocampal_atrophy": value, "no_such_finding": 1.0, "cortical_atrophy": None})
        for one, value in zip(patients, values, strict=True)
    ]
    rows.append(findings_row(patient(999, "NC"), {"hippocampal_atrophy": float("nan")}))
    (one,) = summary_of(task, patients, rows).w_scores
    assert (one.name, one.title) == ("hippocampal_atrophy", "hippocampal atrophy")
    assert [(entry.label, entry.visits) for entry in one.by_label] == [("AD", 40), ("MCI", 0), ("NC", 21)]
    expected = np.quantile(scores["AD"], (0.05, 0.25, 0.5, 0.75, 0.95))
    assert one.by_label[0].quantiles == pytest.approx(expected, abs=1e-4)
    assert one.by_label[2].quantiles == (-1.8, -1.0, 0.0, 1.0, 1.8)
    assert one.by_label[1].quantiles is None


def test_warnings_are_counted_once_for_a_visit(task: DiagnosisTask) -> None:
    patients = [patient(1, warnings=("not defaced", "b")), patient(2, warnings=("not defaced",)), patient(3)]
    measured = [
        MeasuresRow(patient_id=one.patient_id, visit_id="bl", warnings=("not defaced",)) for one in patients[1:]
    ]
    warnings = summary_of(task, patients, measures=to_table(measured, MEASURES)).warnings
    assert [(row.name, row.count) for row in warnings.shown] == [("not defaced", 3), ("b", 1)]
    assert warnings.other_warnings == 0


def test_rejected_rows_by_stage_and_reason(task: DiagnosisTask) -> None:
    tables = {
        "patients": rejected_rows("patients", "late", "early", "late", *(f"reason {i}" for i in range(60))),
        "measures": rejected_rows("measures"),
        "findings": rejected_rows("findings", *["no diagnosis"] * 7, "x" * 5000),
    }
    rejected = summary_of(task, [patient(1)], rejected=tables).rejected
    assert rejected.rows == 71
    assert len(rejected.shown) == 50
    assert (rejected.other_reasons, rejected.other_rows) == (14, 14)
    assert [(one.stage, one.reason, one.rows) for one in rejected.shown][:2] == [
        ("patients", "late", 2),
        ("patients", "early", 1),
    ]
    assert ("findings", "no diagnosis", 7) in [(one.stage, one.reason, one.rows) for one in rejected.shown]
    assert sum(one.rows for one in rejected.shown) + rejected.other_rows == rejected.rows
    only = summary_of(task, [patient(1)], rejected={"findings": rejected_rows("findings", "x" * 5000)}).rejected
    assert [len(one.reason) for one in only.shown] == [200]


def test_example_is_the_first_visit_whose_picture_can_be_read(task: DiagnosisTask) -> None:
    patients = [patient(1, "AD"), patient(2, "MCI"), patient(3, "NC"), patient(4, "AD")]
    paths = [(), ("lost.png",), ("lost.png", "there.png"), ("there.png",)]
    rows = [findings_row(one, {}, slice_paths=own) for one, own in zip(patients, paths, strict=True)]

    def picture(path: str) -> str | None:
        return "data:," if path == "there.png" else None

    found = summary_of(task, patients, rows, picture=picture).example
    assert found and (found.label, found.description, found.montage) == ("NC", "About a NC.", "data:,")
    none = summary_of(task, patients, rows).example
    assert none and (none.label, none.montage) == ("AD", None)
    assert summary_of(task, patients, []).example is None


def test_empty_tables(task: DiagnosisTask) -> None:
    summary = summary_of(task, [], [])
    assert (summary.visits, summary.people, summary.w_scores, summary.example) == (0, 0, (), None)
    assert not summary.synthetic
    assert rows_of(summary, "Sex") == {"female": ((0, 0, 0), 0), "male": ((0, 0, 0), 0)}


def test_nothing_tells_an_id_or_a_place(task: DiagnosisTask) -> None:
    files = {"image_path": "/CANARY/t1.nii.gz", "segmentation_path": "/CANARY/s.mgz"}
    patients = [patient(i, cohort=REAL, visit_id=f"CANARY-v{i}", **files) for i in range(20)]
    rows = [findings_row(one, {"hippocampal_atrophy": 0.1}, slice_paths=("CANARY.png",)) for one in patients]
    tables = {"patients": rejected_rows("patients", "late")}
    summary = summary_of(task, patients, rows, rejected=tables, picture=lambda path: "data:,")
    assert "CANARY" not in summary.model_dump_json()


def real_cohort() -> list[PatientRow]:
    """40 AD, 40 NC; 3 men with AD, 9 with NC."""
    patients: list[PatientRow] = []
    for label, men in (("AD", 3), ("NC", 9)):
        for place in range(40):
            number = len(patients)
            patients.append(patient(number, label, cohort=REAL, sex="male" if place < men else "female"))
    return patients


def test_small_cells_of_real_people_are_hidden(task: DiagnosisTask) -> None:
    patients = real_cohort()
    summary = summary_of(task, patients)
    assert not summary.synthetic
    assert rows_of(summary, "In all")["visits"] == ((40, 0, 40), 80)
    # From 40 people with AD and 12 men, neither of the counts beside the small one may be told.
    assert rows_of(summary, "Sex") == {"female": (("≥5", 0, "≥5"), 68), "male": (("<5", 0, "≥5"), 12)}
    drawn = [one.model_copy(update={"cohort": SYNTHETIC}) for one in patients]
    assert rows_of(summary_of(task, drawn), "Sex")["male"] == ((3, 0, 9), 12)
    mixed = [*drawn, patient(500, cohort=REAL)]
    assert rows_of(summary_of(task, mixed), "Sex")["male"][0][0] == "<5"


def test_many_visits_of_few_people_are_a_small_cell(task: DiagnosisTask) -> None:
    patients = [patient(i, "AD", cohort=REAL) for i in range(30)]
    patients += [patient(900, "AD", cohort=REAL, sex="male", visit_id=f"v{v}") for v in range(8)]
    rows = [findings_row(one, {"hippocampal_atrophy": -1.0} if one.sex == "male" else {}) for one in patients]
    summary = summary_of(task, patients, rows)
    assert rows_of(summary, "Sex")["male"] == (("<5", 0, 0), 8)
    assert summary.w_scores[0].by_label[0].model_dump() == {"label": "AD", "visits": "<5", "quantiles": None}


tables_of_people = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 30), min_size=width, max_size=width), min_size=1, max_size=5)
)


@settings(deadline=None)
@given(table=tables_of_people)
def test_no_small_cell_can_be_had_by_subtraction(table: list[list[int]]) -> None:
    people = np.array(table, dtype=np.int64)
    shown = hide_small(people, people)
    lines = [list(zip(cells, counts, strict=True)) for cells, counts in zip(shown, table, strict=True)]
    for line in [*lines, *(list(column) for column in zip(*lines, strict=True))]:
        for cell, count in line:
            assert (cell == count) if isinstance(cell, int) else (cell == ("<5" if count < SMALLEST else "≥5"))
        hidden = [count for cell, count in line if not isinstance(cell, int)]
        if hidden and any(isinstance(cell, int) and cell > 0 for cell, _ in line):
            assert len(hidden) > 1 and sum(hidden) >= SMALLEST
    assert all(cell == 0 or cell >= SMALLEST for row in shown for cell in row if isinstance(cell, int))


def test_table_without_small_cells_stays() -> None:
    people = np.array([[5, 9], [0, 0], [7, 30]])
    assert hide_small(people, people) == people.tolist()


def test_the_word_for_a_small_cell_has_the_number_of_the_rule() -> None:
    assert f"<{SMALLEST}" in get_args(get_args(Count)[1])
