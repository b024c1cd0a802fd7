"""The resources of a Bundle, checked by fhir.resources: one Patient, and Observations of that patient.

The R4B models (FHIR 4.3.0) stand for R4 (4.0.1): the package has no models of R4 itself, and what is used here of
Bundle, Patient, Observation, DiagnosticReport, Provenance, Device and OperationOutcome is the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from clinical_reasoner.serving.fhir_json import BundleError
from clinical_reasoner.serving.fhir_values import Element, inner
from clinical_reasoner.serving.schema import FieldError

MOST_ENTRIES = 500
TYPES = ("collection", "searchset")
"""A collection is what a sender puts together, a searchset what a FHIR server found. `document` and `message` mean
more than their entries, `transaction` and `batch` ask for something to be stored, `history` has several versions."""
IGNORED_STATUS = ("entered-in-error", "cancelled", "registered")
"""Of Observations: wrong, not done, or not done yet."""
_STATUS = ("registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown")
_GENDERS = ("female", "male", "other", "unknown")
_OBJECTS = (
    "code",
    "dataAbsentReason",
    "effectivePeriod",
    "maritalStatus",
    "method",
    "subject",
    "valueCodeableConcept",
    "valueQuantity",
)
_ELEMENT = re.compile(r"[A-Za-z]{1,64}")
_WORDS = {
    "extra_forbidden": "unknown element",
    "fhir-validation-wrong-resource-type": "wrong resourceType",
    "list_type": "should be a list without null",
    "model_field_validation.missing": "missing",
    "model_type": "should be an object",
    "model_validation_format": "should be an object",
    "string_type": "should be a text",
}
"""By pydantic's error type; the messages themselves may repeat what was sent."""


@dataclass(frozen=True)
class Resource:
    """A resource of the Bundle, and what others call it."""

    entry: int
    content: Element
    names: frozenset[str]
    """References that mean it."""
    reference: str | None
    """What the answer calls it: its fullUrl, else `Type/id`; None where it has neither."""

    @property
    def place(self) -> str:
        return f"Bundle.entry[{self.entry}].resource"


@dataclass(frozen=True)
class Resources:
    patient: Resource
    observations: tuple[Resource, ...]
    """With a status that counts."""
    bundle: Element
    unread: tuple[int, ...]
    """Entries of another type."""
    ignored: tuple[int, ...]
    """Observations with a status of IGNORED_STATUS."""


def resources_of(bundle: Mapping[str, Any]) -> Resources:
    """Raises BundleError with everything that is wrong."""
    entries = _entries(bundle)
    errors: list[FieldError] = []
    patients: list[Resource] = []
    observations: list[Resource] = []
    unread: list[int] = []
    ignored: list[int] = []
    for number, entry in enumerate(entries):
        resource = _resource(number, entry)
        kind = resource.content.get("resourceType")
        if not isinstance(kind, str) or not _ELEMENT.fullmatch(kind):
            errors.append(FieldError(field=f"{resource.place}.resourceType", message="should be the name of a type"))
        elif kind not in ("Patient", "Observation"):
            unread.append(number)
        elif kind == "Observation" and resource.content.get("status") in IGNORED_STATUS:
            ignored.append(number)
        else:
            errors.extend(_faults(kind, resource))
            (patients if kind == "Patient" else observations).append(resource)
    if len(patients) != 1:
        errors.append(FieldError(field="Bundle.entry", message=f"should have one Patient, and has {len(patients)}"))
    else:
        errors.extend(_about_others(patients[0], observations))
    if errors:
        raise BundleError(422, errors)
    return Resources(patients[0], tuple(observations), bundle, tuple(unread), tuple(ignored))


def _entries(bundle: Mapping[str, Any]) -> list[Element]:
    from fhir.resources.R4B.bundle import Bundle  # 0.3 s, which the start of the endpoint need not wait for

    entries = bundle.get("entry")
    errors = []
    if bundle.get("resourceType") != "Bundle":
        errors.append(FieldError(field="Bundle.resourceType", message="should be Bundle"))
    if bundle.get("type") not in TYPES:
        errors.append(FieldError(field="Bundle.type", message=f"should be one of {', '.join(TYPES)}"))
    if not isinstance(bundle.get("timestamp", ""), str):  # as FHIR has no null
        errors.append(FieldError(field="Bundle.timestamp", message="should be an instant"))
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        errors.append(FieldError(field="Bundle.entry", message="should be a list of objects"))
    elif len(entries) > MOST_ENTRIES:
        errors.append(FieldError(field="Bundle.entry", message=f"should have at most {MOST_ENTRIES} entries"))
    if errors:
        raise BundleError(422, errors)
    assert isinstance(entries, list)
    bare = [{"fullUrl": one["fullUrl"]} for one in entries if one.get("fullUrl") is not None]
    # Resources are checked one by one below, so that types which are not read here need no model.
    shell = {name: value for name, value in bundle.items() if name not in ("entry", "signature", "meta")}
    errors.extend(_invalid(Bundle, {**shell, "entry": bare} if bare else shell, "Bundle"))
    errors.extend(
        FieldError(field=f"Bundle.entry[{number}].resource", message="missing; should be an object")
        for number, one in enumerate(entries)
        if not isinstance(one.get("resource"), dict)
    )
    if errors:
        raise BundleError(422, errors)
    return entries


def _resource(number: int, entry: Element) -> Resource:
    content = inner(entry, "resource")
    full_url, kind, id_ = entry.get("fullUrl"), content.get("resourceType"), content.get("id")
    relative = f"{kind}/{id_}" if isinstance(kind, str) and isinstance(id_, str) else None
    own = full_url if isinstance(full_url, str) else None
    names = frozenset(name for name in (own, relative) if name)
    return Resource(number, content, names, own or relative)


def _faults(kind: str, resource: Resource) -> Iterator[FieldError]:
    from fhir.resources.R4B.observation import Observation
    from fhir.resources.R4B.patient import Patient

    content, place = resource.content, resource.place
    for name in ("implicitRules", "modifierExtension"):
        if content.get(name):
            yield FieldError(field=f"{place}.{name}", message="changes what the resource means, and is not understood")
    # Contained resources are not read.
    read = {name: value for name, value in content.items() if name not in ("contained", "text", "meta")}
    yield from _invalid(Patient if kind == "Patient" else Observation, read, place)
    yield from _no_objects(content, place)
    if kind == "Patient" and content.get("gender") not in (None, *_GENDERS):
        yield FieldError(field=f"{place}.gender", message=f"should be one of {', '.join(_GENDERS)}")
    if kind == "Observation":
        yield from _observation_faults(content, place)


def _observation_faults(content: Element, place: str) -> Iterator[FieldError]:
    """What the models let through."""
    if content.get("status") not in _STATUS:
        yield FieldError(field=f"{place}.status", message=f"should be one of {', '.join(_STATUS)}")
    if content.get("code") is None:
        yield FieldError(field=f"{place}.code", message="missing")
    components = content.get("component")
    for number, component in enumerate(components if isinstance(components, list) else ()):
        where = f"{place}.component[{number}]"
        if isinstance(component, dict):
            yield from _no_objects(component, where)
        else:
            yield FieldError(field=where, message="should be an object")


def _no_objects(element: Element, place: str) -> Iterator[FieldError]:
    """Texts in place of objects, which the models would read as JSON."""
    for name in _OBJECTS:
        if isinstance(element.get(name), str):
            yield FieldError(field=f"{place}.{name}", message="should be an object")


def _about_others(patient: Resource, observations: Iterable[Resource]) -> Iterator[FieldError]:
    """Observations that are not about this patient: to read them would mix up people."""
    if not patient.names:
        yield FieldError(field=patient.place, message="has neither a fullUrl nor an id: nothing can refer to it")
    for observation in observations:
        subject = inner(observation.content, "subject").get("reference")
        # A reference to one version means the same patient.
        known = isinstance(subject, str) and subject.split("/_history/")[0] in patient.names
        if not known:
            message = "should be the fullUrl of the Bundle's Patient, or Patient/ and its id"
            yield FieldError(field=f"{observation.place}.subject.reference", message=message)
        if observation.content.get("focus"):
            place = f"{observation.place}.focus"
            yield FieldError(field=place, message="an Observation about somebody or something else cannot be used")


def _invalid(model: type[BaseModel], content: Mapping[str, Any], place: str) -> Iterator[FieldError]:
    """What the model of fhir.resources has against it, as places and kinds."""
    try:
        model.model_validate(content)
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False, include_context=False):
            yield FieldError(field=_below(place, details), message=_WORDS.get(details["type"], "not valid here"))
    except (KeyError, TypeError, ValueError, AttributeError):
        # The models look classes up by names in the content, and fail so where there is none.
        yield FieldError(field=place, message="not valid")


def _below(place: str, details: ErrorDetails) -> str:
    """FHIRPath-like. The name of an unknown element was made by whoever sent it."""
    parts = details["loc"][:-1] if details["type"] == "extra_forbidden" else details["loc"]
    for part in parts:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part == "resource_type":
            place += ".resourceType"
        elif part != "root" and _ELEMENT.fullmatch(part):
            place += f".{part}"
    return place
