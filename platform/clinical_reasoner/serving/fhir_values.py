"""Values of Observations: which type, unit and code each is allowed to have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from clinical_reasoner.serving.fhir_codes import Code, Factor, FhirCodes
from clinical_reasoner.serving.fhir_dates import When
from clinical_reasoner.serving.schema import FieldError

UCUM = "http://unitsofmeasure.org"
Kind = Literal["field", "finding", "measure"]
Element = Mapping[str, Any]
"""A part of a resource as JSON."""


class UnusableError(Exception):
    """A value that is refused, with its place and what is allowed there."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(place)
        self.error = FieldError(field=place, message=message)


@dataclass(frozen=True)
class Item:
    """An Observation, or a component of one, that means something here."""

    kind: Kind
    name: str
    """Column, finding or measure."""
    place: str
    """FHIRPath-like, e.g. `Bundle.entry[2].resource`."""
    entry: int
    element: Element
    when: When | None
    segmenter: str | None


def objects(element: Element, name: str) -> list[Element]:
    """The objects of a list; what is no object is refused before, and is left out here."""
    listed = element.get(name)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def inner(element: Element, name: str) -> Element:
    """An object below another; empty where there is none."""
    found = element.get(name)
    return found if isinstance(found, dict) else {}


def codes_of(concept: Element) -> set[Code]:
    """System and code of each coding of a CodeableConcept."""
    keys = ((coding.get("system"), coding.get("code")) for coding in objects(concept, "coding"))
    return {(system, code) for system, code in keys if isinstance(system, str) and isinstance(code, str)}


def value_of(item: Item, codes: FhirCodes, units: Mapping[str, Factor], grades: Collection[str]) -> Any:
    """The value as the `patients` table has it; of a finding its grade; None where it is said to be absent, or has a
    code that stands for no value here. Raises UnusableError."""
    name = _only_value(item)
    if name is None:
        return None
    if item.kind == "finding":
        return _grade(item, name, codes.grade_system, grades)
    if item.kind == "measure":
        return _number(item, name, units)
    field = codes.fields[item.name]
    if name == "valueCodeableConcept" and (field.values or field.texts):
        concept = inner(item.element, name)
        known = sorted({value for code in codes_of(concept) if (value := field.coded(code)) is not None})
        if len(known) > 1:
            raise UnusableError(f"{item.place}.value", "its codes mean different values")
        text = concept.get("text")
        return known[0] if known else field.written(text) if isinstance(text, str) else None
    if name == "valueString" and field.texts:
        return field.written(str(item.element[name]))
    if field.units:
        return _number(item, name, field.units)
    raise UnusableError(f"{item.place}.value", "should be a valueCodeableConcept")


def _only_value(item: Item) -> str | None:
    """Name of its value; None where a reason for its absence stands instead."""
    given = [name for name, value in item.element.items() if name.startswith("value") and value is not None]
    absent = item.element.get("dataAbsentReason") is not None
    if len(given) > 1 or (given and absent):
        raise UnusableError(f"{item.place}.value", "should be one value, or one dataAbsentReason")
    if not given and not absent:
        raise UnusableError(f"{item.place}.value", "missing; give a value or a dataAbsentReason")
    return given[0] if given else None


def _grade(item: Item, name: str, system: str, grades: Collection[str]) -> str:
    if name == "valueString":
        found = {item.element[name]}
    elif name == "valueCodeableConcept":
        found = {code for own, code in codes_of(inner(item.element, name)) if own == system}
    else:
        raise UnusableError(f"{item.place}.value", "should be a valueCodeableConcept or a valueString with a grade")
    grade = found.pop() if len(found) == 1 else None
    if grade not in grades:
        raise UnusableError(f"{item.place}.value", f"should be one grade of {', '.join(grades)}; as code of {system}")
    return str(grade)


def _number(item: Item, name: str, units: Mapping[str, Factor]) -> float:
    place = f"{item.place}.value"
    if name == "valueInteger" and (item.kind == "field" or "1" in units):  # a volume without its unit is no volume
        return _plain_number(item.element[name], place)
    if name != "valueQuantity":
        raise UnusableError(place, f"should be a valueQuantity in {' or '.join(units)}")
    quantity = inner(item.element, name)
    if quantity.get("comparator") is not None:
        raise UnusableError(
            f"{place}.comparator", "a bound is no value; leave the Observation out or give the value itself"
        )
    unit = quantity.get("code")
    if quantity.get("system") != UCUM or not isinstance(unit, str) or unit not in units:
        raise UnusableError(f"{place}.code", f"the unit should be one of {', '.join(units)}, as code of {UCUM}")
    return _plain_number(quantity.get("value"), f"{place}.value") * units[unit]


def _plain_number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise UnusableError(place, "should be a number")
    if value < 0:
        raise UnusableError(place, "should not be negative")
    return float(value)
