"""Regional volumes of a label map: counted voxels times the volume of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from clinical_reasoner.cohort.visits import REGIONS
from clinical_reasoner.imaging.labels import LabelScheme, region_sums
from clinical_reasoner.imaging.scans import LabelMap, ScanError

WHITE_MATTER = ("left-cerebral-white-matter", "right-cerebral-white-matter")
"""A label map without them holds chosen structures, not the head."""
ICV_MM3 = (0.9e6, 2.2e6)
"""Intracranial volumes outside are an error of the segmentation or of the file's geometry."""
LEAST_CSF = 0.02
"""Share of label 24 in a sum that reaches the skull. SynthSeg's 24 is all CSF around the brain, more than a tenth;
FreeSurfer's is a remnant of about a thousandth, and its labels add up to the brain, not to the skull."""
MOST_UNKNOWN_LABELS = 60
"""Different labels below 256 that the scheme does not know; an intensity image in place of a label map has them all."""


def regional_volumes(label_map: LabelMap, scheme: LabelScheme) -> dict[str, float]:
    """Volumes in mm³ under the names of cohort/visits.py REGIONS, both hemispheres summed; higher = larger.

    A region is left out when one of its structures has no voxels: half a region would be a wrong number. `icv`, the sum
    of all structures inside the skull, is there where the segmentation holds the brain and the CSF around it. Raises
    ScanError when it is not 0.9 to 2.2 L, and when the labels are not those of the scheme.
    """
    counts = np.bincount(label_map.array.ravel(order="K"))
    known = {label for labels in scheme.ids.values() for label in labels}
    unknown = set(np.flatnonzero(counts[1:256]) + 1) - known
    if len(unknown) > MOST_UNKNOWN_LABELS:
        raise ScanError("not a label map of this scheme: too many labels that it does not know")
    structures = {
        name: float(sum(counts[label] for label in labels if label < len(counts))) * label_map.voxel_mm3
        for name, labels in scheme.ids.items()
    }
    volumes = region_sums(structures)
    inside = sum(structures.values())
    whole = all(structures.get(name, 0.0) > 0 for name in WHITE_MATTER)
    if whole and structures.get("csf", 0.0) > LEAST_CSF * inside:
        volumes["icv"] = checked_icv(inside)
    return volumes


def ratios(volumes: Mapping[str, float]) -> dict[str, float]:
    """Ratios of regional volumes (mm³) by the names of cohort/visits.py RATIOS, where their regions are known.

    Hippocampal occupancy = hippocampus / (hippocampus + inferior lateral ventricle), 0..1: how much of its place the
    hippocampus still fills (Heister 2011, Neurology 77:1619). Lower = more affected; needs no head size.
    """
    hippocampus, horn = volumes.get("hippocampus"), volumes.get("inferior_lateral_ventricle")
    if not hippocampus or horn is None:
        return {}
    return {"hippocampal_occupancy": hippocampus / (hippocampus + horn)}


def checked_icv(icv_mm3: float) -> float:
    """The intracranial volume, mm³. Raises ScanError when it is not that of a head."""
    low, high = ICV_MM3
    if not low <= icv_mm3 <= high:
        raise ScanError(f"intracranial volume outside {low / 1e6:g} to {high / 1e6:g} L")
    return icv_mm3


def missing_regions(volumes: Mapping[str, float], requested: Iterable[str] = REGIONS) -> tuple[str, ...]:
    """Why each requested region that is not among the volumes is not, in the order of the request."""
    reasons = {"icv": "icv: the segmentation does not reach the skull and no table gives it"}
    return tuple(
        reasons.get(region, f"{region}: a structure of it is missing or has no voxels")
        for region in requested
        if region not in volumes
    )
