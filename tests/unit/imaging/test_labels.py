"""Labels and regions: FreeSurfer's ids, structures by name, and tables that give other ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.visits import LOBES, REGIONS
from clinical_reasoner.imaging.labels import (
    DROPPED_BY_DKT,
    FREESURFER,
    LOBE_PARCELS,
    PARCELS,
    REGION_STRUCTURES,
    read_lookup_table,
    region_sums,
    structure_name,
)
from clinical_reasoner.imaging.scans import ScanError

COLOR_TABLE = """\
#$Id: FreeSurferColorLUT.txt,v 1.38.2.1 2007/08/20 01:52:07 nicks Exp $

#No. Label Name:                            R   G   B   A

0   Unknown                                 0   0   0   0
4   Left-Lateral-Ventricle                  120 18  134 0
5   Left-Inf-Lat-Vent                       196 58  250 0
9   Left-Thalamus                           0   118 14  0
10  Left-Thalamus-Proper*                   0   118 14  0
17  Left-Hippocampus                        220 216 20  0
24  CSF                                     60  60  60  0
43  Right-Lateral-Ventricle                 120 18  134 0
53  Right-Hippocampus                       220 216 20  0
77  WM-hypointensities                      200 70  255 0
118 Epidermis                               255 20  147 0

1006    ctx-lh-entorhinal                   220 20  10  0
2006    ctx_rh_entorhinal                   220 20  10  0
"""
SEG35 = """\
 0  Unknown                         0   0   0 0
 1  Left-Cerebral-White-Matter    245 245 245 0
 2  Left-Cerebral-Cortex          205  62  78 0
13  Left-Hippocampus              220 216  20 0
32  Right-Hippocampus             220 216  20 0
14  Left-Amygdala                 103 255 255 0
33  Right-Amygdala                103 255 255 0
"""


def table(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    file = tmp_path / "labels.txt"
    file.write_bytes(text.encode(encoding))
    return file


def test_every_region_of_the_cohort_has_its_structures() -> None:
    assert set(REGION_STRUCTURES) == set(REGIONS) - {"icv"}
    assert set(LOBE_PARCELS) == set(LOBES)
    for parts in REGION_STRUCTURES.values():
        assert set(parts.required) | set(parts.optional) <= FREESURFER.ids.keys()


def test_ids() -> None:
    ids = FREESURFER.ids
    assert (ids["left-hippocampus"], ids["right-hippocampus"]) == ((17,), (53,))
    assert (ids["left-inf-lat-vent"], ids["right-inf-lat-vent"]) == ((5,), (44,))
    assert (ids["ctx-lh-superiorparietal"], ids["ctx-rh-precuneus"]) == ((1029,), (2025,))
    assert (ids["wm-hypointensities"], ids["csf"]) == ((77,), (24,))
    every = [label for labels in ids.values() for label in labels]
    assert len(every) == len(set(every)) and 0 not in every
    assert len(PARCELS) == 34 and not {4} & PARCELS.keys()


def test_lobes_share_no_parcel_and_leave_out_cingulate_and_insula() -> None:
    parcels = [number for lobe in LOBES for number in LOBE_PARCELS[lobe]]
    assert len(parcels) == len(set(parcels))
    left = {PARCELS[number] for number in PARCELS.keys() - set(parcels)}
    assert left == {
        "caudalanteriorcingulate",
        "isthmuscingulate",
        "posteriorcingulate",
        "rostralanteriorcingulate",
        "insula",
    }


def test_lobes_are_whole_without_what_dkt_drops_and_with_nothing_else_missing() -> None:
    volumes = dict.fromkeys(FREESURFER.ids, 1.0)
    assert region_sums(volumes)["temporal"] == 18
    for number in DROPPED_BY_DKT:
        for side in ("lh", "rh"):
            del volumes[f"ctx-{side}-{PARCELS[number]}"]
    dkt = region_sums(volumes)
    assert (dkt["frontal"], dkt["temporal"], dkt["parietal"], dkt["occipital"]) == (20, 14, 10, 8)
    volumes["ctx-rh-inferiortemporal"] = 0.0
    volumes["right-amygdala"] = 0.0
    left = region_sums(volumes)
    assert dkt.keys() - left.keys() == {"temporal", "amygdala"}


def test_hypointensities_of_a_side_are_added_where_there_are_any() -> None:
    assert region_sums({"wm-hypointensities": 5.0}) == {"wm_hypointensities": 5.0}
    assert region_sums({"wm-hypointensities": 5.0, "left-wm-hypointensities": 2.0}) == {"wm_hypointensities": 7.0}
    assert region_sums({"left-wm-hypointensities": 2.0, "right-wm-hypointensities": 2.0}) == {}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Left-Hippocampus", "left-hippocampus"),
        (" left hippocampus ", "left-hippocampus"),
        ("Left-Thalamus-Proper", "left-thalamus"),
        ("Right-Thalamus-Proper*", "right-thalamus"),
        ("Left-Thalamus", "left-thalamus"),
        ("Right Inferior Lateral Ventricle", "right-inf-lat-vent"),
        ("ctx_lh_entorhinal", "ctx-lh-entorhinal"),
        ("CC_Mid_Anterior", "cc-mid-anterior"),
        ("WM-hypointensities", "wm-hypointensities"),
    ],
)
def test_structure_name(text: str, name: str) -> None:
    assert structure_name(text) == name
    assert name in FREESURFER.ids


def test_color_table(tmp_path: Path) -> None:
    ids = read_lookup_table(table(tmp_path, COLOR_TABLE)).ids
    assert ids["left-hippocampus"] == FREESURFER.ids["left-hippocampus"]
    assert ids["left-thalamus"] == (9, 10)
    assert (ids["ctx-lh-entorhinal"], ids["ctx-rh-entorhinal"]) == ((1006,), (2006,))
    assert "epidermis" not in ids and "unknown" not in ids and len(ids) == 10


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_table_with_ids_of_its_own(tmp_path: Path, encoding: str) -> None:
    ids = read_lookup_table(table(tmp_path, SEG35.replace("\n", "\r\n"), encoding)).ids
    assert (ids["left-hippocampus"], ids["right-hippocampus"], ids["left-cerebral-cortex"]) == ((13,), (32,), (2,))


def test_names_with_spaces_without_colours_and_with_comments(tmp_path: Path) -> None:
    text = "3 Left Hippocampus 1 2 3 0\n4 Right-Hippocampus\n5 Left-Amygdala 1 2 3 # no alpha\n6 Right-Amygdala 0.1 0.2"
    ids = read_lookup_table(table(tmp_path, text)).ids
    assert ids == {
        "left-hippocampus": (3,),
        "right-hippocampus": (4,),
        "left-amygdala": (5,),
        "right-amygdala": (6,),
    }


@pytest.mark.parametrize(
    ("text", "encoding", "why"),
    [
        (SEG35, "utf-16", "not readable as UTF-8"),
        (SEG35 + "7 Left-Hippocampus 0 0 0 0\n", "utf-8", "a structure has two numbers"),
        (SEG35 + "13 Left-Amygdala 0 0 0 0\n", "utf-8", "line 8 gives a number a second name"),
        ("label,name\n17,Left-Hippocampus\n", "utf-8", "line 1 is not a number, a name and a colour"),
        ("17\n", "utf-8", "line 1 is not"),
        ("9" * 5000 + " Left-Hippocampus\n", "utf-8", "line 1 is not"),
        ("-3 Left-Hippocampus\n", "utf-8", "line 1 is not"),
        ("1 Hippocampus_L 0 0 0 0\n", "utf-8", "names none of the structures"),
        ("", "utf-8", "names none of the structures"),
        ("# a\n" * 2**21, "utf-8", "larger than any"),
    ],
)
def test_what_is_no_table(tmp_path: Path, text: str, encoding: str, why: str) -> None:
    with pytest.raises(ScanError, match=why):
        read_lookup_table(table(tmp_path, text, encoding))


def test_repeated_lines_and_names_that_no_region_needs(tmp_path: Path) -> None:
    text = SEG35 + SEG35 + "40 Skull 0 0 0 0\n40 Scalp 0 0 0 0\n"
    assert read_lookup_table(table(tmp_path, text)) == read_lookup_table(table(tmp_path, SEG35))


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="no such file"):
        read_lookup_table(tmp_path / "none.txt")
