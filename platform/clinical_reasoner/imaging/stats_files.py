"""FreeSurfer's tables of volumes: aseg.stats and lh/rh.aparc.stats of versions 5 to 7, and FastSurfer's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clinical_reasoner.imaging.labels import region_sums, structure_name
from clinical_reasoner.imaging.scans import ScanError, find_file
from clinical_reasoner.imaging.volumes import checked_icv

MOST_STATS_BYTES = 4 * 2**20
SAME_ICV = 1.001
"""Ratio above which two tables' intracranial volumes are of two heads or runs."""
_ICV = ("eTIV", "ICV")
"""Second fields of the estimated total intracranial volume; ICV until version 5.1."""
_VOLUME_COLUMNS = ("Volume_mm3", "GrayVol")
_REVISIONS = {
    "mri_segstats.c,v 1.75.2.2": "5.1",
    "mri_segstats.c,v 1.121": "6.0",
    "mris_anatomical_stats.c,v 1.79": "6.0",
}
"""Revisions of FreeSurfer's programs, which version 6 and older state in place of a version, as seen in their files. A
program that did not change between versions tells none."""


@dataclass(frozen=True)
class StatsFile:
    """One table as written."""

    volumes: Mapping[str, float]
    """Structure, in the form of imaging/labels.py `structure_name` -> mm³, corrected for partial volume."""
    measures: Mapping[str, float]
    """Second field of a `# Measure` line in mm^3, e.g. `CortexVol` -> mm³. Several measures share the first."""
    hemisphere: str | None
    """lh or rh of a table of cortical parcels."""
    segmenter: str | None
    """Program and version, e.g. `freesurfer-6.0`; that of an unknown revision names it. None where there is neither."""
    dkt: bool
    """Parcels of the DKT protocol, whose borders are not those of Desikan's."""


@dataclass(frozen=True)
class StatsVolumes:
    volumes: Mapping[str, float]
    """mm³ under the names of cohort/visits.py REGIONS, with `icv` (eTIV) where the tables give it."""
    segmenter: str | None


def read_stats_volumes(paths: Iterable[Path], root: Path | None) -> StatsVolumes:
    """The regions of one visit's tables: aseg.stats, lh.aparc.stats, rh.aparc.stats, or those of them that there are.

    Regions that lack a structure are left out. Raises ScanError for a table that cannot be used, two of the same
    hemisphere, tables of two versions or of two heads, and an eTIV outside 0.9 to 2.2 L.
    """
    tables = [read_stats_file(path, root) for path in paths]
    volumes: dict[str, float] = {}
    for table in tables:
        if volumes.keys() & table.volumes.keys():
            raise ScanError("stats: two tables of the same structures")
        volumes |= table.volumes
    stated = [table.segmenter for table in tables if table.segmenter]
    versions = [name for name in stated if re.fullmatch(r"(free|fast)surfer-\d+\.\d+", name)]
    if len(set(versions)) > 1:
        raise ScanError("stats: tables of two versions")
    segmenter = next(iter(versions + stated), None)
    sizes = [table.measures[name] for table in tables for name in _ICV if name in table.measures]
    if sizes and max(sizes) > min(sizes) * SAME_ICV:
        raise ScanError("stats: tables with two intracranial volumes")
    regions = region_sums(volumes)
    if sizes:
        regions["icv"] = checked_icv(sizes[0])
    return StatsVolumes(regions, f"{segmenter}+dkt" if segmenter and any(table.dkt for table in tables) else segmenter)


def read_stats_file(path: Path, root: Path | None) -> StatsFile:
    """A table of FreeSurfer's, its columns by name. `root`: the folder that the file must not leave.

    Raises ScanError for a file that is not such a table or is cut off.
    """
    file = find_file(path, root)
    if file.stat().st_size > MOST_STATS_BYTES:
        raise ScanError("stats: larger than any table of FreeSurfer's")
    try:
        # Names of machines and users stand in the header, in any encoding.
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        raise ScanError("stats: cannot be read") from None
    header = [line.lstrip("# ").rstrip() for line in lines if line.startswith("#")]
    rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    hemisphere = _field(header, "hemi")
    if hemisphere not in (None, "lh", "rh"):
        raise ScanError("stats: its hemisphere is neither lh nor rh")
    dkt = "DKT" in (_field(header, "AnnotationFile") or "")
    return StatsFile(_volumes(header, rows, hemisphere), _measures(header), hemisphere, _segmenter(header), dkt)


def _field(header: Sequence[str], name: str) -> str | None:
    """What follows a name in the header."""
    return next((line.removeprefix(name).strip() for line in header if line.split(None, 1)[:1] == [name]), None)


def _volumes(header: Sequence[str], rows: Sequence[Sequence[str]], hemisphere: str | None) -> dict[str, float]:
    columns = (_field(header, "ColHeaders") or "").split()
    column = next((columns.index(name) for name in _VOLUME_COLUMNS if name in columns), None)
    if column is None or "StructName" not in columns:
        raise ScanError("stats: no columns StructName and Volume_mm3 or GrayVol")
    if columns[column] == "GrayVol" and hemisphere is None:
        raise ScanError("stats: parcels without a hemisphere")
    stated = _field(header, "NRows")
    if any(len(row) != len(columns) for row in rows) or (stated is not None and stated != str(len(rows))):
        raise ScanError("stats: the table is cut off")
    volumes: dict[str, float] = {}
    for row in rows:
        name = structure_name(row[columns.index("StructName")])
        if columns[column] == "GrayVol":
            name = f"ctx-{hemisphere}-{name}"
        if name in volumes:
            raise ScanError("stats: a structure stands there twice")
        volumes[name] = _volume(row[column])
    return volumes


def _measures(header: Sequence[str]) -> dict[str, float]:
    measures: dict[str, float] = {}
    for line in header:
        fields = [field.strip() for field in line.removeprefix("Measure ").split(",")]
        # Version 6 lacks the comma after CortexVol: its second field goes on with the text.
        if line.startswith("Measure ") and len(fields) >= 4 and fields[1] and fields[-1] == "mm^3":
            measures[fields[1].split()[0]] = _volume(fields[-2])
    return measures


def _volume(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ScanError("stats: a volume is not a number from 0 up")
    return value


def _segmenter(header: Sequence[str]) -> str | None:
    fast = re.match(r"\d+\.\d+", _field(header, "FastSurfer_version") or "")
    if fast:
        return f"fastsurfer-{fast.group()}"
    stated = _field(header, "cvs_version") or ""
    version = re.search(r"(?:^|-)v?(\d+\.\d+)(?:\.\d+)?(?:-|$)", stated)
    if version:
        return f"freesurfer-{version[1]}"
    revision = re.search(r"\w+\.c,v [\d.]+", stated)
    if revision:
        return f"freesurfer-{_REVISIONS.get(revision.group(), revision.group().replace(',v ', '-'))}"
    return None
