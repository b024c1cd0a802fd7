"""From a FHIR Bundle to the body of a DiagnoseRequest, and to what its answer refers to.

One Patient and Observations about that patient. Of several Observations of one kind the last one counts. The age is
that on the day of the study: the newest effective date of the Observations that are read, and without one the Bundle's
timestamp, which only says when it was put together. What is not read is named by its entry, never by its content.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from clinical_reasoner.cohort.tables import GRADE_UNIT
from clinical_reasoner.cohort.visits import RATINGS, SHAPES
from clinical_reasoner.evidence.grading import RATING_UNIT, grade_patient
from clinical_reasoner.evidence.w_scores import w_scores
from clinical_reasoner.imaging.norms import Norms
from clinical_reasoner.records import Measure, PatientRow
from clinical_reasoner.serving.fhir_codes import Factor, FhirCodes
from clinical_reasoner.serving.fhir_dates import When, age_at, latest, read_when
from clinical_reasoner.serving.fhir_json import BundleError
from clinical_reasoner.serving.fhir_resources import Resource, Resources, resources_of
from clinical_reasoner.serving.fhir_values import Item, Kind, UnusableError, codes_of, inner, objects, value_of
from clinical_reasoner.serving.schema import DiagnoseRequest, FieldError, ModelChoice, field_errors, names_in
from clinical_reasoner.task import DiagnosisTask

ICV = "icv"


@dataclass(frozen=True)
class Source:
    """What the answer refers to."""

    patient: str
    """Reference of the Patient."""
    effective: str | None
    """Day or time of the study, as it was sent."""
    inputs: tuple[tuple[str | None, str], ...]
    """Reference (None where it has none) and place in the Bundle of each resource that was read."""


@dataclass(frozen=True)
class BundleReading:
    body: dict[str, Any]
    """Of a DiagnoseRequest, without `model`."""
    graded: dict[str, str]
    """Findings whose grade was not given, but comes from volumes or ratings."""
    places: Mapping[str, str]
    """Field of the body -> place in the Bundle."""
    warnings: tuple[str, ...]
    source: Source

    def request(self, model: type[DiagnoseRequest], choice: ModelChoice) -> DiagnoseRequest:
        """Raises BundleError with places in the Bundle."""
        try:
            return model.model_validate({**self.body, "model": choice})
        except ValidationError as error:
            errors = field_errors(error.errors(include_url=False, include_input=False), names_in(model))
            raise BundleError(422, located(errors, self.places)) from error


def located(errors: Iterable[FieldError], places: Mapping[str, str]) -> tuple[FieldError, ...]:
    """Errors of a request's fields, at the places of the Bundle that those came from."""
    return tuple(FieldError(field=places.get(one.field, "Bundle"), message=one.message) for one in errors)


def read_bundle(
    bundle: Mapping[str, Any],
    task: DiagnosisTask,
    codes: FhirCodes,
    norms: Norms | None = None,
    cut_points: Sequence[float] = (),
) -> BundleReading:
    """Raises BundleError (422) with the place of everything that is wrong. `norms` and `cut_points` (descending
    w-scores between the grades) as in the stage `findings`; without norms, volumes are left out with a warning."""
    resources = resources_of(bundle)
    gathered = _Gathered(task, codes)
    gathered.add_patient(resources.patient)
    read = [one for one in resources.observations if gathered.add_observation(one)]
    study = _study(gathered.items, bundle)
    gathered.choose()
    gathered.add_age(resources.patient, study)
    if gathered.errors:
        raise BundleError(422, gathered.errors)
    row = gathered.row()
    scored = w_scores(row, task, norms or Norms())
    grades = {one.name: one.grade for one in grade_patient(row, task, cut_points, scored)}
    given = {measure.name for measure in row.measures if measure.unit == GRADE_UNIT}
    known = {field.name: value for field in task.fields if (value := getattr(row, field.name)) is not None}
    patient = {**known, **({"findings": grades} if grades else {})}
    inputs = tuple((one.reference, f"Bundle.entry[{one.entry}]") for one in (resources.patient, *read))
    return BundleReading(
        body={"patient": patient},
        graded={name: grade for name, grade in grades.items() if name not in given},
        places={f"patient.{name}": place for name, place in gathered.places.items()},
        warnings=(*gathered.warnings, *_left_out(resources, gathered), *_ungraded(gathered, row, norms, bool(scored))),
        source=Source(resources.patient.reference or "", study.text if study else None, inputs),
    )


class _Gathered:
    """What the resources of one Bundle say, and what is wrong with them."""

    def __init__(self, task: DiagnosisTask, codes: FhirCodes) -> None:
        self.task, self.codes = task, codes
        self.items: list[Item] = []
        self.fields: dict[str, Any] = {}
        self.measures: list[Measure] = []
        self.volumes: list[Item] = []
        self.places: dict[str, str] = {}
        self.errors: list[FieldError] = []
        self.warnings: list[str] = []
        self.unknown: list[int] = []
        self._field_of = codes.field_of()
        self._units = _measure_units(task, codes)

    def add_patient(self, patient: Resource) -> None:
        gender, place = patient.content.get("gender"), patient.place
        if gender in ("female", "male"):
            self.fields["sex"], self.places["sex"] = gender, f"{place}.gender"
        elif gender is not None:
            self.warnings.append(f"{place}.gender: taken as unknown; female and male are known here")
        status, known = inner(patient.content, "maritalStatus"), self.codes.fields.get("marital_status")
        if status and known:
            values = {value for code in codes_of(status) if (value := known.coded(code)) is not None}
            if len(values) == 1:
                self.fields["marital_status"] = values.pop()
                self.places["marital_status"] = f"{place}.maritalStatus"
            else:
                self.warnings.append(f"{place}.maritalStatus: taken as unknown; its code stands for no value here")

    def add_observation(self, observation: Resource) -> bool:
        """Whether it, or a component of it, means something here."""
        content, place = observation.content, observation.place
        when = self._when(observation)
        methods = codes_of(inner(content, "method"))
        segmenter = next((code for system, code in sorted(methods) if system == self.codes.segmenter_system), None)
        found = False
        parts = [(content, place)]
        parts += [(part, f"{place}.component[{number}]") for number, part in enumerate(objects(content, "component"))]
        for part, where in parts:
            meanings = self._meanings(part)
            if len(meanings) > 1:
                self.errors.append(FieldError(field=f"{where}.code", message="its codes mean different things"))
            for kind, name in sorted(meanings):
                found = True
                self.items.append(Item(kind, name, where, observation.entry, part, when, segmenter))
        if not found:
            self.unknown.append(observation.entry)
        elif content.get("status") in ("preliminary", "unknown"):
            self.warnings.append(f"{place}.status: not final")
        return found

    def choose(self) -> None:
        """Of each kind the last one, and its value."""
        by_kind: defaultdict[tuple[Kind, str], list[Item]] = defaultdict(list)
        for item in self.items:
            by_kind[item.kind, item.name].append(item)
        for (kind, name), items in by_kind.items():
            index = latest([item.when for item in items])
            if index is None:
                message = f"several give {name}; which is the last must be told by their effectiveDateTime"
                self.errors.extend(FieldError(field=f"{item.place}.effective", message=message) for item in items)
                continue
            try:
                value = value_of(items[index], self.codes, self._units.get(name, {}), self.task.grade_names)
            except UnusableError as unusable:
                self.errors.append(unusable.error)
                continue
            if value is None:
                self.warnings.append(f"{items[index].place}.value: taken as unknown")
            else:
                self._keep(items[index], kind, value)

    def add_age(self, patient: Resource, study: When | None) -> None:
        """By the date of birth; by an Observation of the age only where that tells none."""
        written, place = patient.content.get("birthDate"), f"{patient.place}.birthDate"
        if written is None:
            return
        birth = read_when(written)
        if birth is None:
            message = "should be YYYY, YYYY-MM or YYYY-MM-DD, from 1850 on"
            self.errors.append(FieldError(field=place, message=message))
            return
        if study is None:
            if "age_years" not in self.fields:
                self.warnings.append(f"{place}: gives no age, as no effectiveDateTime and no Bundle.timestamp is known")
            return
        age = age_at(birth, study)
        if age is None:
            self.errors.append(FieldError(field=place, message="lies after the study"))
            return
        if not (birth.exact and study.exact):
            self.warnings.append(f"{place}: the age may be wrong by a year, as a date is not given to the day")
        self.fields["age_years"], self.places["age_years"] = age, place

    def row(self) -> PatientRow:
        """Raises BundleError where a value is outside the bounds of the `patients` table."""
        segmenters = {item.segmenter for item in self.volumes}
        segmenter = segmenters.pop() if len(segmenters) == 1 else None
        identity: dict[str, Any] = dict.fromkeys(("patient_id", "visit_id", "cohort"), "request")
        try:
            return PatientRow(
                **identity, split="test", **self.fields, measures=tuple(self.measures), segmenter=segmenter
            )
        except ValidationError as error:
            errors = field_errors(error.errors(include_url=False, include_input=False), names_in(PatientRow))
            raise BundleError(422, located(errors, self.places)) from error

    def _when(self, observation: Resource) -> When | None:
        content, place = observation.content, f"{observation.place}.effective"
        period = inner(content, "effectivePeriod")
        given = (
            content.get("effectiveDateTime"),
            content.get("effectiveInstant"),
            period.get("end"),
            period.get("start"),
        )
        written = next((one for one in given if one is not None), None)
        when = read_when(written)
        if written is not None and when is None:
            self.errors.append(FieldError(field=place, message="should be a date or dateTime from 1850 to 2200"))
        return when

    def _meanings(self, part: Mapping[str, Any]) -> set[tuple[Kind, str]]:
        findings = {finding.name for finding in self.task.findings}
        meanings: set[tuple[Kind, str]] = set()
        for code in codes_of(inner(part, "code")):
            if code in self._field_of:
                meanings.add(("field", self._field_of[code]))
            elif code[0] == self.codes.finding_system and code[1] in findings:
                meanings.add(("finding", code[1]))
            elif code[0] == self.codes.measure_system and code[1] in self._units:
                meanings.add(("measure", code[1]))
        return meanings

    def _keep(self, item: Item, kind: Kind, value: Any) -> None:
        place = f"{item.place}.value"
        if kind == "field":
            self.fields[item.name], self.places[item.name] = value, place
        elif kind == "finding":
            self.measures.append(Measure(name=item.name, value=self.task.grade_names.index(value), unit=GRADE_UNIT))
            self.places[f"findings.{item.name}"] = place
        elif item.name in RATINGS:
            self.measures.append(Measure(name=item.name, value=value, unit=RATING_UNIT))
        else:
            self.measures.append(Measure(name=item.name, value=value, unit="1" if item.name in SHAPES else "mm3"))
            self.volumes.append(item)


def _measure_units(task: DiagnosisTask, codes: FhirCodes) -> dict[str, Mapping[str, Factor]]:
    """Measures that the task grades by -> units that each may have."""
    regions = {name for one in task.findings if one.measure for name in (*one.measure.regions, *one.measure.over)}
    ratings = {one.rating.name for one in task.findings if one.rating}
    plain = ratings | set(SHAPES)
    names = (*sorted(regions | ratings), ICV)
    return {name: codes.plain_units if name in plain else codes.volume_units for name in names}


def _study(items: Iterable[Item], bundle: Mapping[str, Any]) -> When | None:
    """The newest effective date, else the Bundle's timestamp."""
    dated = [item.when for item in items if item.when is not None]
    return max(dated, key=lambda when: (when.last, when.first)) if dated else read_when(bundle.get("timestamp"))


def _left_out(resources: Resources, gathered: _Gathered) -> Iterator[str]:
    """What was in the Bundle and is in no answer."""
    for entries, reason in (
        (resources.ignored, "Observations with a status that does not count"),
        (gathered.unknown, "Observations without a code that is known here"),
        (resources.unread, "resources of another type than Patient and Observation"),
    ):
        if entries:
            yield f"not read: {reason}: Bundle.entry{', '.join(f'[{number}]' for number in entries)}"
    if any(link.get("relation") == "next" for link in objects(resources.bundle, "link")):
        yield "Bundle.link: the search has further pages, which are not read"


def _ungraded(gathered: _Gathered, row: PatientRow, norms: Norms | None, graded: bool) -> Iterator[str]:
    if not gathered.volumes:
        return
    places = ", ".join(f"[{number}]" for number in sorted({item.entry for item in gathered.volumes}))
    if norms is None or not norms.norms:
        yield f"not used: regional measures, as this endpoint has no norms: Bundle.entry{places}"
    elif row.segmenter is None:
        yield f"not used: regional measures without one segmenter (Observation.method): Bundle.entry{places}"
    elif not graded:
        yield (
            "not used: regional measures, as there are no norms of that segmenter and field strength, or age, sex or "
            f"ICV is not known: Bundle.entry{places}"
        )
