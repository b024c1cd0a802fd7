"""ADNI, the Alzheimer's Disease Neuroimaging Initiative: ADNIMERGE with the FreeSurfer tables, or its single tables.

Codings: ADNI's data dictionary (DATADIC) and `adnimerger` of the ADNIMERGE R package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from clinical_reasoner.cohort.adni_tables import (
    ADNI,
    DXSUM,
    MARITAL,
    MOST_YEARS_OF_EDUCATION,
    UNKNOWN_MARITAL,
    adni_id,
    read_adni_tables,
)
from clinical_reasoner.cohort.adni_volumes import (
    ICV_MM3,
    LARGEST_MM3,
    Scan,
    field_strength,
    read_volumes,
    scan_fields,
    segmenter_of,
)
from clinical_reasoner.cohort.cdr import mmse_points, whole_number
from clinical_reasoner.cohort.columns import StudyFileError, StudyRow, read_study_table
from clinical_reasoner.cohort.fields import build_visit
from clinical_reasoner.cohort.joins import DAYS_PER_YEAR, Entry, Key, best_entries, find_table, left_over
from clinical_reasoner.cohort.study_fields import SEXES, months_of, read_date, study_visit, subject_number
from clinical_reasoner.cohort.visits import Visit, set_aside
from clinical_reasoner.records import RejectedRow

DX = {
    "CN": "NC",
    "NL": "NC",
    "MCI": "MCI",
    "Dementia": "AD",
    "NL to MCI": "MCI",
    "NL to Dementia": "AD",
    "MCI to Dementia": "AD",
    "MCI to NL": "NC",
    "Dementia to MCI": "MCI",
    "Dementia to NL": "NC",
}
"""DX; older releases write a change, which ends in the diagnosis of the visit."""
DX_BL = {"CN": "NC", "SMC": "NC", "EMCI": "MCI", "LMCI": "MCI", "MCI": "MCI", "AD": "AD", "Dementia": "AD"}
"""DX_bl, the group at enrolment: SMC, subjective memory concern, is cognitively normal; early and late MCI are MCI."""
REGIONS_OF_ADNIMERGE = {"hippocampus": "Hippocampus", "entorhinal": "Entorhinal", "fusiform": "Fusiform", "icv": "ICV"}
"""Ventricles is lateral and inferior lateral ventricles in one and MidTemp one gyrus: neither is a region here."""
NO_ICV = "volumes left out: intracranial volume implausible"

_REQUIRED = ("RID", "VISCODE", "EXAMDATE", "DX", "AGE", "PTGENDER", "PTEDUCAT", "PTMARRY", "APOE4", "MMSE")
_OPTIONAL = ("PTID", "DX_bl", "EXAMDATE_bl", "Years_bl", "FSVERSION", "FLDSTRENG", *REGIONS_OF_ADNIMERGE.values())
# The R package writes a dot where the download writes an underscore.
_COLUMNS = {name: tuple(dict.fromkeys((name, name.replace("_", ".")))) for name in (*_REQUIRED, *_OPTIONAL)}


@dataclass(frozen=True)
class _Line:
    """A row of ADNIMERGE; the time since baseline may need another row."""

    fields: dict[str, Any]
    age_at_baseline: float | None
    years: float | None
    """Years_bl."""
    day: date | None
    baseline: date | None


def read_adni(folder: Path) -> Iterator[Visit | RejectedRow]:
    """Visits of ADNI from a folder with ADNIMERGE.csv and, where there, UCSFFSX and UCSFFSL tables; from the single
    tables (`read_adni_tables`) where ADNIMERGE is not there.

    The diagnosis is DX of the visit; DX_bl, that of enrolment, stands in at baseline alone. Age is AGE, which is that
    at baseline, plus the time since. Volumes are joined by (RID, visit); those of the tables, which are more, replace
    the few of ADNIMERGE. Every row counts with a visit or is set aside. Raises StudyFileError for a folder without
    these tables, for one that is there twice, and for one that cannot be used.
    """
    merged = find_table(folder, "ADNIMERGE")
    if merged is None:
        if find_table(folder, *DXSUM) is None:
            raise StudyFileError(f"{folder}: neither ADNIMERGE.csv nor DXSUM.csv; their names may also carry a date")
        yield from read_adni_tables(folder)
        return
    lines, no_visit = best_entries(read_study_table(merged, _COLUMNS, _REQUIRED), _line)
    scans, no_scan = read_volumes(folder)
    yield from (*no_visit, *no_scan)
    torn = _two_sexes(lines)
    used: set[Key] = set()
    for key, entry in lines.items():
        first, scan = lines.get((key[0], "bl")), scans.get(key)
        try:
            if key[0] in torn:
                raise ValueError("rows of the same subject disagree on sex")
            fields = _with_scan(entry.value.fields, scan.value if scan else None)
            times = _times(key[1], entry.value, first.value if first else None)
            visit = build_visit(**fields, **times, source=entry.place)
        except ValueError as error:
            yield set_aside(entry.place, str(error))
        else:
            used.add(key)
            yield visit
    yield from left_over((scans,), used)


def _with_scan(own: dict[str, Any], scan: Scan | None) -> dict[str, Any]:
    """Fields of ADNIMERGE with the volumes of a table, which replace its own. Where the table tells no field strength,
    that of ADNIMERGE stays, unless the two name different segmentations, which may be of different scans."""
    fields = own | scan_fields(scan)
    if fields.get("field_strength_t") is None and own.get("segmenter") in (None, fields.get("segmenter")):
        fields["field_strength_t"] = own.get("field_strength_t")
    return fields


def _two_sexes(lines: dict[Key, Entry[_Line]]) -> set[int]:
    """Subjects of whom both are said."""
    pairs = {(number, entry.value.fields["sex"]) for (number, _), entry in lines.items() if entry.value.fields["sex"]}
    return {number for number, sexes in Counter(number for number, _ in pairs).items() if sexes > 1}


def _times(visit_id: str, line: _Line, first: _Line | None) -> dict[str, float | None]:
    """Age and years since baseline, from Years_bl, else from the dates. Where neither is known the visit's name still
    orders the visits, but makes no age."""
    baseline = line.baseline or (first.day if first else None)
    years = 0.0 if visit_id == "bl" else line.years
    if years is None and line.day and baseline:
        years = (line.day - baseline).days / DAYS_PER_YEAR
    known = line.age_at_baseline is not None and years is not None
    return {
        "age_years": round((line.age_at_baseline or 0) + (years or 0), 1) if known else None,
        "years_from_baseline": months_of(visit_id) / 12 if years is None else years,
    }


def _line(row: StudyRow) -> tuple[Key, Entry[_Line]]:
    number = subject_number(row)
    visit_id, screening = study_visit(row)
    if screening:
        raise ValueError("a screening, which ADNIMERGE has among the values of baseline")
    label, source = row.code("DX", DX), "DX"
    if label is None and visit_id == "bl":
        label, source = row.code("DX_bl", DX_BL), "DX_bl"
    if label is None:
        raise ValueError("no diagnosis of this visit")
    fields = {
        "patient_id": adni_id(number),
        "visit_id": visit_id,
        "cohort": ADNI,
        "label": label,
        "label_source": source,
        "sex": row.code("PTGENDER", SEXES),
        "education_years": row.number("PTEDUCAT", 0, MOST_YEARS_OF_EDUCATION),
        "marital_status": row.code("PTMARRY", MARITAL, UNKNOWN_MARITAL),
        "apoe4_copies": whole_number(row, "APOE4", 0, 2),
        "mmse": mmse_points(row, "MMSE"),
        **_own_volumes(row),
    }
    line = _Line(
        fields,
        row.number("AGE", 18, 120),
        row.number("Years_bl", -1, 60),
        read_date(row, "EXAMDATE"),
        read_date(row, "EXAMDATE_bl"),
    )
    return (number, visit_id), Entry(row.place, line, claim=label)


def _own_volumes(row: StudyRow) -> dict[str, Any]:
    """The fields of a visit that ADNIMERGE's own volumes fill; their quality control is done already."""
    numbers = {region: row.number(name, 0, LARGEST_MM3) for region, name in REGIONS_OF_ADNIMERGE.items()}
    volumes = {region: number for region, number in numbers.items() if number}
    if not volumes.keys() - {"icv"}:
        return {}
    if "icv" in volumes and not ICV_MM3[0] <= volumes["icv"] <= ICV_MM3[1]:
        return {"warnings": (NO_ICV,)}
    return scan_fields(Scan(volumes, segmenter_of(row.text("FSVERSION")), field_strength(row)))
