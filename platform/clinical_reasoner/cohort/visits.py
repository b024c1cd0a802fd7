"""One visit as a study's files tell it, before people are split: what every reader yields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import Field

from clinical_reasoner.config.cohort import VisitChoice
from clinical_reasoner.records import Measure, PatientRow, RejectedRow, Split

# Names of regional measures, both hemispheres together, mm3 unless said otherwise. Every source uses these names.
LOBES = ("frontal", "temporal", "parietal", "occipital")
REGIONS = (
    "hippocampus",
    "amygdala",
    "entorhinal",
    "parahippocampal",
    "fusiform",
    "precuneus",
    "superior_parietal",
    *LOBES,
    "lateral_ventricle",
    "inferior_lateral_ventricle",
    "wm_hypointensities",
    "icv",
)
SHAPES = ("temporal_horn_roundness", "frontal_horn_roundness")
"""0..1 (unit `1`), higher = rounder."""
RATIOS = ("hippocampal_occupancy",)
"""0..1 (unit `1`), lower = more affected."""
RATINGS = ("mta", "gca", "koedam", "fazekas")
"""Visual ratings (unit `rating`), higher = worse."""


class Visit(PatientRow):
    """A patients row without its split, and where it stands among the person's visits."""

    split: Split = "train"
    """Not yet decided: the stage sets it by person."""
    stated_split: Split | None = None
    """The split that the file states for the person."""
    years_from_baseline: float = Field(default=0.0, ge=-5, le=60)
    """Time since the person's first visit, years; orders the visits."""
    source: str
    """File and line that it was read from; never a person's id."""


def choose_visits(visits: Iterable[Visit], choice: VisitChoice) -> Iterator[Visit]:
    """Baseline (the earliest), last or all visits of each person, in the order in which people first appear."""
    by_person: dict[str, list[Visit]] = {}
    for visit in visits:
        by_person.setdefault(visit.patient_id, []).append(visit)
    for own in by_person.values():
        ordered = sorted(own, key=lambda visit: visit.years_from_baseline)
        yield from {"baseline": ordered[:1], "last": ordered[-1:], "all": ordered}[choice]


def set_aside(place: str, reason: str) -> RejectedRow:
    """A row that is not used, with its file and line and a reason that holds no value of the patient."""
    return RejectedRow(source=place, stage="patients", reason=reason)


def measure(name: str, value: float, unit: str = "mm3") -> Measure:
    return Measure(name=name, value=value, unit=unit)
