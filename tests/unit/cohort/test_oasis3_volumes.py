"""OASIS-3's FreeSurfer table: regions from columns, and scans that are not used."""

from __future__ import annotations

import pytest

from clinical_reasoner.cohort.columns import StudyRow
from clinical_reasoner.cohort.oasis3_volumes import REGION_COLUMNS, scan_fields
from clinical_reasoner.cohort.visits import REGIONS

COLUMNS = list(dict.fromkeys(name for columns in REGION_COLUMNS.values() for name in columns))
VALUES = {name: 100.0 + number for number, name in enumerate(COLUMNS)} | {"IntraCranialVol": 1.5e6}
OTHERS = {
    "subject": "OAS39001",
    "session": "OAS39001_MR_d0129",
    "version": "freesurfer-Linux-centos6_x86_64-stable-pub-v5.3.0-HCP-patch",
    "FS QC Status": "Passed",
}


def row(**changes: str | None) -> StudyRow:
    return StudyRow("fs.csv:2", {**OTHERS, **{name: str(value) for name, value in VALUES.items()}, **changes})


def volumes(line: StudyRow) -> dict[str, float]:
    return {one.name: one.value for one in scan_fields(line)["measures"] if one.unit == "mm3"}


def test_regions_are_sums_of_both_hemispheres_and_of_desikan_parcels() -> None:
    found = volumes(row())
    assert set(found) == set(REGIONS)
    assert found["icv"] == 1.5e6
    assert found["hippocampus"] == VALUES["Left-Hippocampus_volume"] + VALUES["Right-Hippocampus_volume"]
    assert (
        found["inferior_lateral_ventricle"] == VALUES["Left-Inf-Lat-Vent_volume"] + VALUES["Right-Inf-Lat-Vent_volume"]
    )
    assert found["superior_parietal"] == VALUES["lh_superiorparietal_volume"] + VALUES["rh_superiorparietal_volume"]
    assert found["wm_hypointensities"] == VALUES["WM-hypointensities_volume"]
    occipital = ("lateraloccipital", "lingual", "cuneus", "pericalcarine")
    assert found["occipital"] == sum(VALUES[f"{side}_{name}_volume"] for side in ("lh", "rh") for name in occipital)


def test_every_parcel_of_a_lobe_is_in_one_lobe_alone() -> None:
    lobes = [REGION_COLUMNS[name] for name in ("frontal", "temporal", "parietal", "occipital")]
    assert [len(columns) for columns in lobes] == [22, 18, 10, 8]
    assert len({column for columns in lobes for column in columns}) == 58  # 34 parcels but 4 cingulate ones and insula
    assert not any("cingulate" in column or "insula" in column for columns in lobes for column in columns)


def test_region_with_a_missing_or_empty_part_is_left_out() -> None:
    gaps = {"lh_cuneus_volume": None, "Right-Hippocampus_volume": "0", "IntraCranialVol": None}
    found = volumes(row(**gaps, **{"WM-hypointensities_volume": "0"}))
    assert set(REGIONS) - found.keys() == {"occipital", "hippocampus", "icv"}
    assert found["wm_hypointensities"] == 0


@pytest.mark.parametrize(
    ("session", "version", "segmenter"),
    [
        ("OAS39001_MR_d0129", OTHERS["version"], "freesurfer-5.3"),
        ("OAS39001_MR_d0129", "freesurfer-Linux-centos5_x86_64-stable-pub-v5.0.0", "freesurfer-5.0"),
        ("OAS39001_Freesurfer53_d0129", None, "freesurfer-5.3"),
        ("OAS39001_MR_d0129", None, "freesurfer"),
    ],
)
def test_version_of_the_segmenter(session: str, version: str | None, segmenter: str) -> None:
    assert scan_fields(row(session=session, version=version))["segmenter"] == segmenter


@pytest.mark.parametrize("status", ["Passed", "passed", "Passed with edits", "PASSED WITH EDITS", None])
def test_checked_scan_is_used(status: str | None) -> None:
    assert len(volumes(row(**{"FS QC Status": status}))) == len(REGIONS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"FS QC Status": "Failed"}, "FS QC Status says that the segmentation failed"),
        ({"FS QC Status": "quarantined"}, "FS QC Status says that the segmentation failed"),
        ({"FS QC Status": "perhaps"}, "FS QC Status has an unknown code; known are Passed, Passed with edits, Failed"),
        ({"IntraCranialVol": "1500"}, "IntraCranialVol is outside 900000 to 2.2e"),
        ({"IntraCranialVol": "inf"}, "IntraCranialVol is outside 900000 to 2.2e"),
        ({"Left-Amygdala_volume": "3.1e3x"}, "Left-Amygdala_volume is not a number"),
        ({"lh_entorhinal_volume": "-5"}, "lh_entorhinal_volume is outside 0 to 2.2e"),
        ({"lh_entorhinal_volume": "nan "}, "lh_entorhinal_volume is outside 0 to 2.2e"),
        ({name: None for name in COLUMNS if name != "IntraCranialVol"}, "no region has a volume"),
    ],
)
def test_scan_that_cannot_be_used(changes: dict[str, str | None], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}"):
        scan_fields(row(**changes))
