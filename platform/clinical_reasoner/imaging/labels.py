"""Which labels make up a region: FreeSurfer's ids (SynthSeg uses the same) and tables that name other ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clinical_reasoner.cohort.visits import LOBES
from clinical_reasoner.imaging.scans import ScanError, find_file

MOST_TABLE_BYTES = 4 * 2**20
"""FreeSurferColorLUT.txt has about 0.1 MB."""

# FreeSurferColorLUT.txt: what aseg and SynthSeg put inside the skull. Names in the form of `structure_name`.
_SIDED = {
    "cerebral-white-matter": (2, 41),
    "cerebral-cortex": (3, 42),
    "lateral-ventricle": (4, 43),
    "inf-lat-vent": (5, 44),
    "cerebellum-white-matter": (7, 46),
    "cerebellum-cortex": (8, 47),
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "lesion": (25, 57),
    "accumbens-area": (26, 58),
    "ventraldc": (28, 60),
    "vessel": (30, 62),
    "choroid-plexus": (31, 63),
    "wm-hypointensities": (78, 79),
    "non-wm-hypointensities": (81, 82),
}
_UNSIDED = {
    "3rd-ventricle": 14,
    "4th-ventricle": 15,
    "brain-stem": 16,
    "csf": 24,
    "5th-ventricle": 72,
    "wm-hypointensities": 77,
    "non-wm-hypointensities": 80,
    "optic-chiasm": 85,
    "cc-posterior": 251,
    "cc-mid-posterior": 252,
    "cc-central": 253,
    "cc-mid-anterior": 254,
    "cc-anterior": 255,
}
PARCELS = {
    1: "bankssts",
    2: "caudalanteriorcingulate",
    3: "caudalmiddlefrontal",
    5: "cuneus",
    6: "entorhinal",
    7: "fusiform",
    8: "inferiorparietal",
    9: "inferiortemporal",
    10: "isthmuscingulate",
    11: "lateraloccipital",
    12: "lateralorbitofrontal",
    13: "lingual",
    14: "medialorbitofrontal",
    15: "middletemporal",
    16: "parahippocampal",
    17: "paracentral",
    18: "parsopercularis",
    19: "parsorbitalis",
    20: "parstriangularis",
    21: "pericalcarine",
    22: "postcentral",
    23: "posteriorcingulate",
    24: "precentral",
    25: "precuneus",
    26: "rostralanteriorcingulate",
    27: "rostralmiddlefrontal",
    28: "superiorfrontal",
    29: "superiorparietal",
    30: "superiortemporal",
    31: "supramarginal",
    32: "frontalpole",
    33: "temporalpole",
    34: "transversetemporal",
    35: "insula",
}
"""Desikan-Killiany parcels (doi 10.1016/j.neuroimage.2006.01.021); ids are 1000 + number left, 2000 + number right."""
DROPPED_BY_DKT = (1, 32, 33)
"""The DKT protocol gives these to their neighbours (doi 10.3389/fnins.2012.00171); lobes are whole without them."""
LOBE_PARCELS: Mapping[str, tuple[int, ...]] = {
    "frontal": (3, 12, 14, 17, 18, 19, 20, 24, 27, 28, 32),
    "temporal": (1, 6, 7, 9, 15, 16, 30, 33, 34),
    "parietal": (8, 22, 25, 29, 31),
    "occipital": (5, 11, 13, 21),
}
"""As ADNI's and FreeSurfer's lobes without the cingulate and the insula."""
_ONE_PARCEL = {"entorhinal": 6, "parahippocampal": 16, "fusiform": 7, "precuneus": 25, "superior_parietal": 29}
_PAIRS = {
    "hippocampus": "hippocampus",
    "amygdala": "amygdala",
    "lateral_ventricle": "lateral-ventricle",
    "inferior_lateral_ventricle": "inf-lat-vent",
}
_OTHER_NAMES = {"thalamus-proper": "thalamus", "inferior-lateral-ventricle": "inf-lat-vent"}


@dataclass(frozen=True)
class Region:
    """Structures whose volumes add up to a region."""

    required: tuple[str, ...]
    """All of them are there, or the sum would be too small; left before right where there are two."""
    optional: tuple[str, ...] = ()
    """Added where they are there."""


@dataclass(frozen=True)
class LabelScheme:
    """What the labels of a segmentation mean."""

    ids: Mapping[str, tuple[int, ...]]
    """Structure inside the skull, in the form of `structure_name` -> its labels."""


def _cortical(numbers: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"ctx-{side}-{PARCELS[number]}" for number in numbers for side in ("lh", "rh"))


def _region_structures() -> dict[str, Region]:
    regions = {region: Region((f"left-{name}", f"right-{name}")) for region, name in _PAIRS.items()}
    regions |= {region: Region(_cortical((number,))) for region, number in _ONE_PARCEL.items()}
    for lobe in LOBES:
        parcels = LOBE_PARCELS[lobe]
        kept = tuple(number for number in parcels if number not in DROPPED_BY_DKT)
        dropped = tuple(number for number in parcels if number in DROPPED_BY_DKT)
        regions[lobe] = Region(_cortical(kept), _cortical(dropped))
    sided = ("left-wm-hypointensities", "right-wm-hypointensities")
    regions["wm_hypointensities"] = Region(("wm-hypointensities",), sided)
    return regions


REGION_STRUCTURES: Mapping[str, Region] = _region_structures()
"""Every name of cohort/visits.py REGIONS but `icv`."""

FREESURFER = LabelScheme(
    {
        **{f"left-{name}": (left,) for name, (left, _) in _SIDED.items()},
        **{f"right-{name}": (right,) for name, (_, right) in _SIDED.items()},
        **{name: (label,) for name, label in _UNSIDED.items()},
        **{f"ctx-lh-{name}": (1000 + number,) for number, name in PARCELS.items()},
        **{f"ctx-rh-{name}": (2000 + number,) for number, name in PARCELS.items()},
    }
)
"""aseg, aparc+aseg (Desikan and DKT) and SynthSeg."""


def structure_name(text: str) -> str:
    """One form of a structure's name, however a release writes it: `Left-Thalamus-Proper*` is `left-thalamus`."""
    plain = "-".join(text.lower().replace("_", " ").replace("-", " ").rstrip("* ").split())
    for side in ("left-", "right-"):
        if plain.startswith(side):
            return side + _OTHER_NAMES.get(plain.removeprefix(side), plain.removeprefix(side))
    return plain


def region_sums(volumes: Mapping[str, float]) -> dict[str, float]:
    """Regions from structures' volumes, in the same unit; a region that lacks a required structure, or has an empty
    one, is left out."""
    return {
        region: sum(volumes.get(name, 0.0) for name in (*parts.required, *parts.optional))
        for region, parts in REGION_STRUCTURES.items()
        if all(volumes.get(name, 0.0) > 0 for name in parts.required)
    }


def read_lookup_table(path: Path) -> LabelScheme:
    """The scheme of a table in the form of FreeSurferColorLUT.txt: lines of number, name and colour.

    Names that are no structure inside the skull are left out. Raises ScanError for a file that is no such table, and
    where the number of a structure that a region needs is not one and the same throughout.
    """
    file = find_file(path, None)
    if file.stat().st_size > MOST_TABLE_BYTES:
        raise ScanError("lookup table: larger than any")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ScanError("lookup table: not readable as UTF-8 text") from None
    needed = {name for parts in REGION_STRUCTURES.values() for name in (*parts.required, *parts.optional)}
    ids: dict[str, tuple[int, ...]] = {}
    names: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        cells = line.partition("#")[0].split()
        if not cells:
            continue
        if len(cells) < 2 or not (cells[0].isascii() and cells[0].isdigit() and len(cells[0]) < 10):
            raise ScanError(f"lookup table: line {number} is not a number, a name and a colour")
        colour = 4 if len(cells) > 5 and all(cell.isdigit() for cell in cells[-4:]) else len(cells[2:])
        label, name = int(cells[0]), structure_name(" ".join(cells[1 : len(cells) - colour]))
        if names.setdefault(label, name) != name and {names[label], name} & needed:
            raise ScanError(f"lookup table: line {number} gives a number a second name")
        if label and name in FREESURFER.ids and label not in ids.get(name, ()):
            ids[name] = (*ids.get(name, ()), label)
    if any(len(ids[name]) > 1 for name in needed & ids.keys()):
        raise ScanError("lookup table: a structure has two numbers")
    if not needed & ids.keys():
        raise ScanError("lookup table: names none of the structures, such as Left-Hippocampus")
    return LabelScheme(ids)
