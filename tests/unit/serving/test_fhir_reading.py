"""What a Bundle becomes: fields, findings, warnings, and where each came from."""

from __future__ import annotations

from typing import Any

import pytest

from clinical_reasoner.imaging.norms import Norm, Norms
from clinical_reasoner.serving.fhir_json import BundleError
from clinical_reasoner.serving.fhir_reading import read_bundle
from tests.unit.serving.fhir_bundles import (
    CODES,
    FINDING,
    LOINC,
    MEASURE,
    MODEL,
    TASK,
    Json,
    bundle,
    coded,
    example,
    fields,
    measured,
    mmse,
    observation,
    patient,
    quantity,
    read,
)

MARITAL = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
EDUCATION = "http://terminology.hl7.org/CodeSystem/v3-EducationLevel"
UNKNOWN = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
CUT_POINTS = (-1.0, -2.0)


def refused(*resources: Json, **elements: Any) -> dict[str, str]:
    with pytest.raises(BundleError) as caught:
        read(*resources, **elements).request(MODEL, "auto")
    assert caught.value.problem.status == 422
    return {error.field: error.message for error in caught.value.problem.errors}


def level(system: str, code: str) -> Json:
    return observation(LOINC, "82589-3", valueCodeableConcept=coded(system, code))


def test_the_example_is_read_whole() -> None:
    reading = read_bundle(example(), TASK, CODES)
    assert reading.body == {
        "patient": {
            "age_years": 74.35,
            "sex": "female",
            "education_years": 12.0,
            "marital_status": "widowed",
            "mmse": 22,
            "apoe4_copies": 1,
            "findings": {"hippocampal_atrophy": "Severe", "ventricle_enlargement": "Mild", "vascular_disease": "No"},
        }
    }
    assert reading.graded == {"vascular_disease": "No"}
    assert reading.warnings == ()
    assert reading.source.effective == "2026-03-12T09:15:00+01:00"
    assert [place for _, place in reading.source.inputs] == [f"Bundle.entry[{number}]" for number in range(5)]
    assert reading.request(MODEL, "teacher").model == "teacher"


@pytest.mark.parametrize(
    "kind", ["document", "message", "transaction", "batch", "history", "batch-response", "x", None]
)
def test_other_types_of_bundle_are_refused(kind: str | None) -> None:
    assert "collection, searchset" in refused(patient(), mmse(), type=kind)["Bundle.type"]


def test_a_searchset_with_further_pages_is_read_with_a_warning() -> None:
    link = [{"relation": "next", "url": "http://x/2"}]
    (warning,) = read(patient(), mmse(), type="searchset", link=link).warnings
    assert "further pages" in warning


def test_there_is_exactly_one_patient() -> None:
    assert refused(mmse())["Bundle.entry"] == "should have one Patient, and has 0"
    assert refused(patient(), patient(id="q"), mmse())["Bundle.entry"] == "should have one Patient, and has 2"


@pytest.mark.parametrize(
    ("full_url", "reference", "known"),
    [
        (None, "Patient/p", True),
        (None, "Patient/p/_history/3", True),
        (None, "Patient/q", False),
        (None, "p", False),
        (None, "#p", False),
        ("urn:uuid:1", "urn:uuid:1", True),
        ("urn:uuid:1", "urn:uuid:2", False),
        ("http://x/fhir/Patient/p", "http://x/fhir/Patient/p", True),
        ("http://x/fhir/Patient/p", "Patient/p", True),
        ("http://x/fhir/Patient/p", "http://y/fhir/Patient/p", False),
    ],
)
def test_an_observation_is_about_the_patient_of_the_bundle(full_url: str | None, reference: str, known: bool) -> None:
    sent = bundle(patient(), mmse(subject={"reference": reference}))
    if full_url:
        sent["entry"][0]["fullUrl"] = full_url
    if known:
        assert read_bundle(sent, TASK, CODES).body["patient"]["mmse"] == 24
        return
    with pytest.raises(BundleError) as caught:
        read_bundle(sent, TASK, CODES)
    assert caught.value.problem.errors[0].field == "Bundle.entry[1].resource.subject.reference"


def test_observations_of_others_are_refused_even_where_they_are_not_read() -> None:
    place = "Bundle.entry[1].resource.subject.reference"
    assert place in refused(patient(), observation(LOINC, "8302-2", subject={"reference": "Patient/q"}), mmse())
    assert place in refused(patient(), mmse(subject={"identifier": {"value": "p"}}))
    assert "Bundle.entry[1].resource.focus" in refused(patient(), mmse(focus=[{"reference": "Patient/q"}]))


def test_the_last_of_several_counts() -> None:
    reading = read(patient(), mmse(20, "2021-01-01"), mmse(26, "2023"), mmse(22, "2022-05-01T10:00:00Z"))
    assert fields(reading)["mmse"] == 26
    assert reading.places["patient.mmse"] == "Bundle.entry[2].resource.value"


@pytest.mark.parametrize(("first", "second"), [("2021-01-01", "2021-01-01"), ("2021", "2021-05"), (None, "2021")])
def test_two_of_which_nobody_knows_which_is_the_last_are_refused(first: str | None, second: str) -> None:
    errors = refused(patient(), mmse(20, first), mmse(20, second))
    assert set(errors) == {f"Bundle.entry[{number}].resource.effective" for number in (1, 2)}


@pytest.mark.parametrize("status", ["entered-in-error", "cancelled", "registered"])
def test_a_status_that_does_not_count_leaves_an_observation_out(status: str) -> None:
    reading = read(patient(), mmse(20, "2021"), mmse(29, "2022", status=status))
    assert fields(reading)["mmse"] == 20
    assert [warning for warning in reading.warnings if "Bundle.entry[2]" in warning]


def test_a_preliminary_observation_is_read_with_a_warning() -> None:
    assert read(patient(), mmse(status="preliminary")).warnings == ("Bundle.entry[1].resource.status: not final",)


@pytest.mark.parametrize(
    ("elements", "timestamp", "age", "warned"),
    [
        ({"birthDate": "1950-03-10"}, None, 73.0, False),
        ({"birthDate": "1950-03"}, None, 72.98, True),
        ({"birthDate": "1950"}, None, 72.68, True),
        ({"birthDate": "1950-03-10"}, "2026-03-10T00:00:00Z", 73.0, False),
        ({}, None, None, False),
    ],
)
def test_age_is_that_of_the_newest_observation(
    elements: Json, timestamp: str | None, age: float | None, warned: bool
) -> None:
    education = observation(LOINC, "82590-1", valueInteger=9, effectiveDateTime="2019")
    stamped = {"timestamp": timestamp} if timestamp else {}
    reading = read(patient(**elements), mmse(20, "2023-03-10"), education, **stamped)
    assert fields(reading).get("age_years") == age
    assert any("wrong by a year" in warning for warning in reading.warnings) == warned


def test_without_dates_the_age_is_that_of_the_timestamp_or_not_known() -> None:
    person = patient(birthDate="1950-03-10")
    assert fields(read(person, mmse(), timestamp="2026-03-10T00:00:00Z"))["age_years"] == 76.0
    reading = read(person, mmse())
    assert "age_years" not in fields(reading)
    assert "birthDate: gives no age" in reading.warnings[0]


def test_an_age_that_was_observed_counts_where_the_date_of_birth_is_not_known() -> None:
    age = observation(LOINC, "30525-0", valueQuantity=quantity(81, "a"), effectiveDateTime="2023-03-10")
    assert fields(read(patient(), age))["age_years"] == 81
    assert fields(read(patient(birthDate="1950-03-10"), age))["age_years"] == 73


def test_a_birth_after_the_study_is_refused() -> None:
    assert refused(patient(birthDate="2024"), mmse(20, "2023"))["Bundle.entry[0].resource.birthDate"]


@pytest.mark.parametrize(
    ("gender", "sex"), [("male", "male"), ("female", "female"), ("other", None), ("unknown", None)]
)
def test_gender(gender: str, sex: str | None) -> None:
    reading = read(patient(gender=gender), mmse())
    assert fields(reading).get("sex") == sex
    assert len(reading.warnings) == (sex is None)


@pytest.mark.parametrize(
    ("code", "status"), [("M", "married"), ("W", "widowed"), ("D", "divorced"), ("S", "never_married"), ("L", None)]
)
def test_marital_status(code: str, status: str | None) -> None:
    reading = read(patient(maritalStatus=coded(MARITAL, code)), mmse())
    assert fields(reading).get("marital_status") == status
    assert len(reading.warnings) == (status is None)


@pytest.mark.parametrize(
    ("made", "name", "value"),
    [
        (mmse(24.0), "mmse", 24),
        (observation(LOINC, "72106-8", valueInteger=7), "mmse", 7),
        (observation(LOINC, "82590-1", valueQuantity=quantity(12.5, "a")), "education_years", 12.5),
        (observation(LOINC, "82590-1", valueQuantity=quantity(9, "1")), "education_years", 9),
        (level(EDUCATION, "BD"), "education_level", "college_graduate"),
        (level(LOINC, "LA30192-1"), "education_level", "high_school"),
        (observation(LOINC, "21619-2", valueString="E4/E4"), "apoe4_copies", 2),
        (observation(LOINC, "21619-2", valueCodeableConcept={"text": "e2/e3"}), "apoe4_copies", 0),
        (observation("urn:clinical-reasoner:field", "apoe4_copies", valueInteger=1), "apoe4_copies", 1),
    ],
)  # fmt: skip
def test_values(made: Json, name: str, value: Any) -> None:
    reading = read(patient(), made)
    assert fields(reading) == {name: value}
    assert reading.request(MODEL, "auto").patient is not None


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (mmse(valueQuantity={"value": 24}), "one of {score}, 1"),
        (mmse(valueQuantity={**quantity(24, "{score}"), "system": "http://x"}), "one of {score}, 1"),
        (mmse(valueQuantity=quantity(24, "%")), "one of {score}, 1"),
        (mmse(valueQuantity={**quantity(24, "{score}"), "comparator": "<"}), "a bound is no value"),
        (mmse("24"), "should be a number"),
        (mmse(-1), "should not be negative"),
        (mmse(31), "less than or equal to 30"),
        (mmse(24.5), "valid integer"),
        (mmse(valueQuantity=quantity(None, "{score}")), "should be a number"),
        (observation(LOINC, "72106-8", valueInteger=True), "should be a number"),
        (observation(LOINC, "72106-8", valueString="24"), "valueQuantity in {score} or 1"),
        (observation(LOINC, "72106-8"), "missing; give a value"),
        (mmse(dataAbsentReason=coded(UNKNOWN, "unknown")), "one value, or one dataAbsentReason"),
        (observation(LOINC, "82589-3", valueString="BD"), "valueCodeableConcept"),
        (observation(LOINC, "82590-1", valueQuantity=quantity(480, "mo")), "one of a, 1"),
        (observation(LOINC, "82590-1", valueInteger=41), "less than or equal to 40"),
        (observation(FINDING, "frontal_atrophy", valueString="Huge"), "one grade of No, Mild, Severe"),
        (observation(FINDING, "frontal_atrophy", valueInteger=1), "with a grade"),
        (observation(FINDING, "frontal_atrophy", valueCodeableConcept=coded("http://x", "Mild")), "one grade of"),
        (observation(MEASURE, "hippocampus", valueInteger=6000), "valueQuantity in mm3"),
        (observation(MEASURE, "hippocampus", valueQuantity=quantity(6000, "mm2")), "one of mm3"),
        (observation(MEASURE, "fazekas", valueQuantity=quantity(1, "mm3")), "one of 1, {score}"),
    ],
)
def test_values_that_are_refused(made: Json, message: str) -> None:
    ((place, told),) = refused(patient(), made).items()
    assert place.startswith("Bundle.entry[1].resource.value")
    assert message in told


def test_a_code_for_which_there_is_no_value_is_unknown_with_a_warning() -> None:
    absent = observation(LOINC, "72106-8", dataAbsentReason=coded(UNKNOWN, "not-performed"), effectiveDateTime="2022")
    associate = observation(LOINC, "82589-3", valueCodeableConcept=coded(EDUCATION, "ASSOC"))
    reading = read(patient(gender="male"), mmse(20, "2021"), absent, associate)
    assert fields(reading) == {"sex": "male"}
    assert reading.warnings == tuple(f"Bundle.entry[{number}].resource.value: taken as unknown" for number in (2, 3))


def test_components_are_read() -> None:
    parts = [
        {"code": coded(LOINC, "72106-8"), "valueInteger": 21},
        {"code": coded(FINDING, "frontal_atrophy"), "valueString": "Mild"},
        {"code": coded(MEASURE, "mta"), "valueInteger": 3},
        {"code": {"text": "something else"}, "valueString": "Zebulon"},
    ]
    reading = read(patient(), observation(LOINC, "72107-6", component=parts))
    assert fields(reading) == {"mmse": 21, "findings": {"medial_temporal_atrophy": "Severe", "frontal_atrophy": "Mild"}}
    assert reading.graded == {"medial_temporal_atrophy": "Severe"}
    assert reading.places["patient.mmse"] == "Bundle.entry[1].resource.component[0].value"
    bad = [{"code": coded(LOINC, "72106-8"), "valueInteger": 99}]
    place = "Bundle.entry[1].resource.component[0].value"
    assert "30" in refused(patient(), observation(LOINC, "72107-6", component=bad))[place]


def test_what_is_not_read_is_named_by_its_entry() -> None:
    height, other = observation(LOINC, "8302-2", valueString="Zebulon"), {"resourceType": "Condition", "id": "Zebulon"}
    reading = read(patient(), mmse(), height, other, height)
    told = " ".join(reading.warnings)
    assert "Bundle.entry[2], [4]" in told
    assert "Bundle.entry[3]" in told
    assert "Zebulon" not in told


def test_codes_of_two_meanings_are_refused() -> None:
    both = {"coding": [*coded(LOINC, "72106-8")["coding"], *coded(LOINC, "82590-1")["coding"]]}
    assert "different things" in refused(patient(), mmse(code=both))["Bundle.entry[1].resource.code"]


def test_a_bundle_that_says_nothing_is_refused() -> None:
    assert "nothing is known" in refused(patient())["Bundle"]


def test_all_errors_come_together() -> None:
    errors = refused(patient(), mmse(-1), observation(FINDING, "frontal_atrophy", valueInteger=1))
    assert len(errors) == 2


def norms(segmenter: str = "fs", **changes: Any) -> Norms:
    """The expected hippocampus has 7,000 mm3 at every age, sex and head size."""
    line = {"worse": "low", "intercept": 8.853665, "per_year": 0.0, "male": 0.0, "per_log_icv": 0.0, "sd": 0.1}
    covered = {"controls": 60, "sexes": ("female", "male"), "youngest_years": 55, "oldest_years": 90}
    named = {"measure": "hippocampal_atrophy", "segmenter": segmenter, "field_strength_t": None}
    return Norms(norms=(Norm.model_validate({**line, **covered, **named, **changes}),))


PERSON = patient(birthDate="1950", gender="female")
SCAN = (measured("hippocampus", 5.5, "mL", effectiveDateTime="2024-01-01"), measured("icv", 1450, "cm3"))


def test_volumes_are_graded_by_norms() -> None:
    reading = read_bundle(bundle(PERSON, *SCAN), TASK, CODES, norms(), CUT_POINTS)
    assert fields(reading)["findings"] == {"hippocampal_atrophy": "Severe"}  # w = ln(5500 / 7000) / 0.1 = -2.4
    assert reading.graded == {"hippocampal_atrophy": "Severe"}
    assert [warning for warning in reading.warnings if "not used" in warning] == []


def test_a_grade_that_was_given_stands_before_a_volume() -> None:
    given = observation(FINDING, "hippocampal_atrophy", valueString="No")
    reading = read_bundle(bundle(PERSON, *SCAN, given), TASK, CODES, norms(), CUT_POINTS)
    assert fields(reading)["findings"] == {"hippocampal_atrophy": "No"}
    assert reading.graded == {}


@pytest.mark.parametrize(
    ("scan", "by", "why"),
    [
        (SCAN, None, "no norms: Bundle.entry[1], [2]"),
        (SCAN, Norms(), "no norms: Bundle.entry[1], [2]"),
        (SCAN, norms("other"), "no norms of that segmenter"),
        (SCAN[:1], norms(), "ICV is not known"),
        (SCAN, norms(field_strength_t=3.0), "field strength"),
        ((SCAN[0], measured("icv", 1450, "mL", segmenter="other")), norms(), "without one segmenter"),
        ((SCAN[0], measured("icv", 1450, "mL", segmenter=None)), norms(), "without one segmenter"),
    ],
)
def test_volumes_that_cannot_be_graded_are_left_out_with_a_warning(scan: Any, by: Norms | None, why: str) -> None:
    reading = read_bundle(bundle(PERSON, *scan), TASK, CODES, by, CUT_POINTS)
    assert "findings" not in fields(reading)
    assert [warning for warning in reading.warnings if "not used: regional measures" in warning and why in warning]


def test_field_strength_chooses_the_norms() -> None:
    tesla = observation("urn:clinical-reasoner:field", "field_strength_t", valueQuantity=quantity(2.89, "T"))
    reading = read_bundle(bundle(PERSON, *SCAN, tesla), TASK, CODES, norms(field_strength_t=3.0), CUT_POINTS)
    assert reading.graded == {"hippocampal_atrophy": "Severe"}
