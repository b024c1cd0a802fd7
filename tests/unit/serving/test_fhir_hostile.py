"""Bundles that mean harm or no sense: each is refused with a place, and nothing of it comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from clinical_reasoner.serving.fhir_json import BundleError, parse_json
from clinical_reasoner.serving.fhir_outcome import outcome
from clinical_reasoner.serving.fhir_reading import read_bundle
from clinical_reasoner.serving.fhir_resources import MOST_ENTRIES
from tests.unit.serving.fhir_bundles import CODES, LOINC, MODEL, TASK, Json, bundle, coded, example, mmse, patient

CANARY = "Zebulon"
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2.5, 10**17, 1e300, "", CANARY, "24", "{}", '{"reference": "Patient/example"}', [], {}, [None],
    [[]], [CANARY], {CANARY: CANARY}, {"coding": CANARY}, {"resourceType": CANARY}, {"resourceType": [CANARY]},
    "Q" * 5000,
)  # fmt: skip
"""Put in place of everything."""
ELEMENTS = (
    "contained", "extension", "modifierExtension", "meta", "text", "implicitRules", "_status", "component",
    "resource_type", "effectivePeriod", "effectiveInstant", "valueString", "valueRatio", "dataAbsentReason", "link",
    "signature", "identifier", "hasMember", "focus", "fhir_comments", "__class__", "model_config", CANARY,
)  # fmt: skip
"""Put beside everything."""


def tried(path: tuple[Any, ...]) -> bool:
    """Not each of the five Observations, which have the same elements."""
    return path[1:2] in ((), (0,), (1,)) or path[:5] == ("entry", 4, "resource", "component", 0)


def places(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(part, dict | list):
        for key in part if isinstance(part, dict) else range(len(part)):
            yield from places(part[key], (*path, key))


def changed(path: tuple[Any, ...], value: Any) -> Any:
    whole = deepcopy(example())
    if not path:
        return value
    part: Any = whole
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return whole


def attempt(sent: Any) -> str:
    """What the client is told; empty where it was read."""
    try:
        read_bundle(parse_json(json.dumps(sent).encode()), TASK, CODES).request(MODEL, "auto")
    except BundleError as error:
        return json.dumps(outcome(error.problem))
    return ""


def test_wrong_things_in_every_place_are_read_or_refused_and_never_repeated() -> None:
    refusals = 0
    for path in filter(tried, places(example())):
        for value in VALUES:
            told = attempt(changed(path, value))
            assert CANARY not in told, path
            refusals += bool(told)
    assert refusals > 500


def test_wrong_things_beside_everything_are_read_or_refused_and_never_repeated() -> None:
    for path in filter(is_object, filter(tried, places(example()))):
        for element in ELEMENTS:
            for value in (CANARY, [{"resourceType": CANARY}], {CANARY: CANARY}):
                assert CANARY not in attempt(changed((*path, element), value)), (path, element)


def is_object(path: tuple[Any, ...]) -> bool:
    part: Any = example()
    for key in path:
        part = part[key]
    return isinstance(part, dict)


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ({"resourceType": "Patient"}, "Bundle.resourceType"),
        ({}, "Bundle.resourceType"),
        ({"resourceType": "Bundle", "type": "collection"}, "Bundle.entry"),
        (bundle(), "Bundle.entry"),
        ({**bundle(patient(), mmse()), "entry": {}}, "Bundle.entry"),
        ({**bundle(patient(), mmse()), "entry": [None]}, "Bundle.entry"),
        ({**bundle(patient(), mmse()), "timestamp": "yesterday"}, "Bundle.timestamp"),
        ({**bundle(patient(), mmse()), CANARY: 1}, "Bundle"),
        (bundle(patient(), {"resourceType": 5}), "Bundle.entry[1].resource.resourceType"),
        (bundle(patient(gender="f"), mmse()), "Bundle.entry[0].resource.gender"),
        (bundle(patient(birthDate="1950-02-30"), mmse()), "Bundle.entry[0].resource.birthDate"),
        (bundle(patient(birthDate="1750-02-03"), mmse()), "Bundle.entry[0].resource.birthDate"),
        (bundle(patient(implicitRules="http://x"), mmse()), "Bundle.entry[0].resource.implicitRules"),
        (bundle({"resourceType": "Patient"}, mmse()), "Bundle.entry[0].resource"),
        (bundle(patient(), mmse(status="done")), "Bundle.entry[1].resource.status"),
        (bundle(patient(), mmse(code=None)), "Bundle.entry[1].resource.code"),
        (bundle(patient(), mmse(effectiveDateTime="2020-01-01T10:00")), "Bundle.entry[1].resource.effectiveDateTime"),
        (bundle(patient(), mmse(effectiveDateTime=0)), "Bundle.entry[1].resource.effective"),
        (bundle(patient(), mmse(modifierExtension=[{"url": "x"}])), "Bundle.entry[1].resource.modifierExtension"),
        (bundle(patient(), mmse(valueInteger=4)), "Bundle.entry[1].resource"),
        (bundle(patient(), mmse(subject='{"reference": "Patient/p"}')), "Bundle.entry[1].resource.subject"),
        (bundle(patient(), mmse(component=[CANARY])), "Bundle.entry[1].resource.component[0]"),
        (bundle(patient(), mmse(valueQuantity={CANARY: 1})), "Bundle.entry[1].resource.valueQuantity"),
    ],
)  # fmt: skip
def test_each_refusal_names_the_place(sent: Json, place: str) -> None:
    with pytest.raises(BundleError) as caught:
        read_bundle(sent, TASK, CODES)
    assert place in [error.field for error in caught.value.problem.errors]
    assert CANARY not in caught.value.problem.model_dump_json()


def test_ten_thousand_entries_are_refused_at_once() -> None:
    sent = bundle(patient(), *[mmse()] * 10_000)
    began = time.perf_counter()
    with pytest.raises(BundleError) as caught:
        read_bundle(sent, TASK, CODES)
    assert time.perf_counter() - began < 0.2
    assert f"at most {MOST_ENTRIES}" in caught.value.problem.errors[0].message


def test_the_largest_bundle_is_read_in_a_moment() -> None:
    part = {"code": coded(LOINC, "8302-2"), "valueInteger": 1}
    sent = bundle(patient(), *[mmse(20, f"{1900 + number // 4}-0{number % 4 + 1}", component=[part] * 8)
                               for number in range(MOST_ENTRIES - 1)])  # fmt: skip
    began = time.perf_counter()
    assert read_bundle(sent, TASK, CODES).places["patient.mmse"] == f"Bundle.entry[{MOST_ENTRIES - 1}].resource.value"
    assert time.perf_counter() - began < 5


def test_hundreds_of_errors_are_told_in_part() -> None:
    with pytest.raises(BundleError) as caught:
        read_bundle(bundle(patient(), *[mmse(status=CANARY)] * 400), TASK, CODES)
    assert 10 < len(caught.value.problem.errors) <= 50


def test_observations_that_refer_to_each_other_in_a_circle_are_read_once() -> None:
    first = mmse(20, "2020", id="a", hasMember=[{"reference": "Observation/b"}], derivedFrom=[{"reference": "#a"}])
    second = mmse(21, "2021", id="b", hasMember=[{"reference": "Observation/a"}], partOf=[{"reference": "Bundle/x"}])
    sent = bundle(patient(managingOrganization={"reference": "Patient/p"}), first, second)
    assert read_bundle(sent, TASK, CODES).body == {"patient": {"mmse": 21}}


def test_contained_resources_are_not_read() -> None:
    contained = [{"resourceType": CANARY}, mmse(3), {"resourceType": "Patient", "id": "p", "gender": "male"}]
    assert read_bundle(bundle(patient(contained=contained), mmse(contained=contained)), TASK, CODES).body == {
        "patient": {"mmse": 24}
    }
