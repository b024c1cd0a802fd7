"""FreeSurfer's tables: what versions 5 to 7 write differently, and tables that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from clinical_reasoner.imaging.labels import FREESURFER, PARCELS
from clinical_reasoner.imaging.scans import LabelMap, ScanError
from clinical_reasoner.imaging.stats_files import read_stats_file, read_stats_volumes
from clinical_reasoner.imaging.volumes import regional_volumes

PROGRAM = {
    ("aseg", "7"): "# generating_program mri_segstats\n# cvs_version 7.4.1",
    ("aparc", "7"): "# generating_program mris_anatomical_stats\n# cvs_version 7.4.1\n# mrisurf.c-cvs_version 7.4.1",
    ("aseg", "6"): "# generating_program mri_segstats\n"
    "# cvs_version $Id: mri_segstats.c,v 1.121 2016/05/31 17:27:11 greve Exp $",
    ("aparc", "6"): "# generating_program mris_anatomical_stats\n"
    "# cvs_version $Id: mris_anatomical_stats.c,v 1.79 2016/03/14 15:15:34 greve Exp $\n"
    "# mrisurf.c-cvs_version $Id: mrisurf.c,v 1.781.2.6 2016/12/27 16:47:14 zkaufman Exp $",
    ("aseg", "5"): "# generating_program mri_segstats\n"
    "# cvs_version $Id: mri_segstats.c,v 1.75.2.9 2013/02/16 00:09:33 greve Exp $",
    ("aparc", "5"): "# generating_program mris_anatomical_stats\n"
    "# cvs_version $Id: mris_anatomical_stats.c,v 1.72 2011/03/02 00:04:26 nicks Exp $",
}
ETIV = "# Measure EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, {:.6f}, mm^3"
ROWS = (
    (4, 5077, 5581.1, "Left-Lateral-Ventricle"),
    (5, 132, 195.5, "Left-Inf-Lat-Vent"),
    (10, 8612, 8178.8, "Left-Thalamus{}"),
    (17, 4357, 4333.5, "Left-Hippocampus"),
    (18, 1573, 1549.1, "Left-Amygdala"),
    (24, 965, 1007.5, "CSF"),
    (30, 0, 0.0, "Left-vessel"),
    (43, 3051, 3370.2, "Right-Lateral-Ventricle"),
    (44, 186, 270.7, "Right-Inf-Lat-Vent"),
    (49, 7812, 7387.3, "Right-Thalamus{}"),
    (53, 4391, 4328.9, "Right-Hippocampus"),
    (54, 1715, 1665.5, "Right-Amygdala"),
    (77, 2244, 1880.1, "WM-hypointensities"),
    (78, 0, 0.0, "Left-WM-hypointensities"),
    (79, 0, 0.0, "Right-WM-hypointensities"),
)


def aseg(
    version: str = "7", etiv: float = 1420434.160521, structures: Sequence[tuple[int, int, float, str]] = ROWS
) -> str:
    proper = "" if version == "7" else "-Proper"
    rows = [
        f" {number:2d} {label:3d} {voxels:9d} {volume:10.1f}  {name.format(proper):30s} 27.3 15.4 0.0 88.0 88.0 "
        for number, (label, voxels, volume, name) in enumerate(structures, start=1)
    ]
    return "\n".join(
        [
            "# Title Segmentation Statistics ",
            "# ",
            PROGRAM["aseg", version],
            "# cmdline mri_segstats --seg mri/aseg.mgz --sum stats/aseg.stats --subject secret-person ",
            "# user     jürgen",
            "# anatomy_type volume",
            "# subjectname secret-person",
            "# Measure BrainSeg, BrainSegVol, Brain Segmentation Volume, 1169408.000000, mm^3",
            "# Measure Cortex, CortexVol, Total cortical gray matter volume, 454587.696158, mm^3",
            "# Measure BrainSegVol-to-eTIV, BrainSegVol-to-eTIV, Ratio of BrainSegVol to eTIV, 0.823275, unitless",
            ETIV.format(etiv),
            "# TableCol  4 ColHeader Volume_mm3",
            f"# NRows {len(structures)} ",
            "# NTableCols 10 ",
            "# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax normRange  ",
            *rows,
            "",
        ]
    )


def aparc(
    hemisphere: str,
    version: str = "7",
    atlas: str = "aparc",
    etiv: float = 1420434.160521,
    parcels: Mapping[str, int] | None = None,
) -> str:
    comma = "" if version == "6" else ","
    names = [name for number, name in PARCELS.items() if atlas == "aparc" or number not in (1, 32, 33)]
    parcels = parcels or {name: 100 + number for number, name in enumerate(names)}
    return "\n".join(
        [
            "# Table of FreeSurfer cortical parcellation anatomical statistics ",
            "# ",
            "# CreationTime 2020/05/04-22:20:26-GMT",
            PROGRAM["aparc", version],
            "# subjectname secret-person",
            f"# hemi {hemisphere}",
            f"# AnnotationFile ../label/{hemisphere}.{atlas}.annot",
            "# AnnotationFileTimeStamp 2020/05/04 21:58:14",
            "# Measure Cortex, NumVert, Number of Vertices, 118968, unitless",
            "# Measure Cortex, WhiteSurfArea, White Surface Total Area, 84858.5, mm^2",
            "# Measure Cortex, MeanThickness, Mean Thickness, 2.39891, mm",
            f"# Measure Cortex, CortexVol{comma} Total cortical gray matter volume, 553998.311189, mm^3",
            *([] if version == "5" else [ETIV.format(etiv)]),
            "# NTableCols 10",
            "# ColHeaders StructName NumVert SurfArea GrayVol ThickAvg ThickStd MeanCurv GausCurv FoldInd CurvInd",
            *(
                f"{name:40s} 1069    732 {volume:6d}  2.144 0.501     0.109     0.021        7     1.0"
                for name, volume in parcels.items()
            ),
            "",
        ]
    )


def write(tmp_path: Path, name: str, text: str) -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


def three(tmp_path: Path, version: str) -> list[Path]:
    return [
        write(tmp_path, "aseg.stats", aseg(version)),
        write(tmp_path, "lh.aparc.stats", aparc("lh", version)),
        write(tmp_path, "rh.aparc.stats", aparc("rh", version)),
    ]


def gray(*names: str) -> float:
    order = list(PARCELS.values())
    return sum(2 * (100 + order.index(name)) for name in names)


@pytest.mark.parametrize(
    ("version", "segmenter"),
    [("7", "freesurfer-7.4"), ("6", "freesurfer-6.0"), ("5", "freesurfer-mri_segstats.c-1.75.2.9")],
)
def test_all_regions(tmp_path: Path, version: str, segmenter: str) -> None:
    found = read_stats_volumes(three(tmp_path, version), tmp_path)
    assert found.segmenter == segmenter
    volumes = found.volumes
    assert volumes["hippocampus"] == pytest.approx(4333.5 + 4328.9)
    assert volumes["lateral_ventricle"] == pytest.approx(5581.1 + 3370.2)
    assert volumes["inferior_lateral_ventricle"] == pytest.approx(195.5 + 270.7)
    assert volumes["wm_hypointensities"] == pytest.approx(1880.1)
    assert volumes["entorhinal"] == gray("entorhinal")
    assert volumes["occipital"] == gray("lateraloccipital", "lingual", "cuneus", "pericalcarine")
    assert volumes["icv"] == pytest.approx(1420434, abs=1)
    assert len(volumes) == 15


@pytest.mark.parametrize("version", ["5", "6", "7"])
def test_thalamus_by_either_name(tmp_path: Path, version: str) -> None:
    volumes = read_stats_file(write(tmp_path, "aseg.stats", aseg(version)), None).volumes
    assert (volumes["left-thalamus"], volumes["right-thalamus"]) == (8178.8, 7387.3)


@pytest.mark.parametrize("version", ["6", "7"])
def test_measures_by_their_second_field(tmp_path: Path, version: str) -> None:
    table = read_stats_file(write(tmp_path, "lh.aparc.stats", aparc("lh", version)), None)
    assert table.measures == {"CortexVol": 553998.311189, "eTIV": 1420434.160521}


def test_volume_is_not_a_count_of_voxels(tmp_path: Path) -> None:
    """The tables correct for partial volume: the largest difference in this one is 10 % of a large structure."""
    array = np.zeros(110**3, np.int32)
    labels = np.repeat([2, 41, *(row[0] for row in ROWS)], [550_000, 550_000, *(row[1] for row in ROWS)])
    array[: len(labels)] = labels
    label_map = LabelMap(array.reshape(110, 110, 110), np.eye(4), 1.0, (1.0, 1.0, 1.0))
    counted = regional_volumes(label_map, FREESURFER)
    tabled = read_stats_volumes([write(tmp_path, "aseg.stats", aseg())], None).volumes
    assert "icv" not in counted
    assert counted.keys() == tabled.keys() - {"icv"}
    assert tabled["hippocampus"] == pytest.approx(counted["hippocampus"], rel=0.02)
    assert tabled["lateral_ventricle"] == pytest.approx(counted["lateral_ventricle"], rel=0.11)
    assert tabled["lateral_ventricle"] != pytest.approx(counted["lateral_ventricle"], rel=0.05)


def test_hemisphere_is_that_of_the_header(tmp_path: Path) -> None:
    table = read_stats_file(write(tmp_path, "lh.aparc.stats", aparc("rh")), None)
    assert table.hemisphere == "rh"
    assert {name[:7] for name in table.volumes} == {"ctx-rh-"}


def test_one_hemisphere_gives_no_cortical_region(tmp_path: Path) -> None:
    found = read_stats_volumes(three(tmp_path, "7")[:2], None)
    assert set(found.volumes) == {
        "hippocampus",
        "amygdala",
        "lateral_ventricle",
        "inferior_lateral_ventricle",
        "wm_hypointensities",
        "icv",
    }


def test_empty_structure_is_missing(tmp_path: Path) -> None:
    text = aseg().replace("   1880.1 ", "      0.0 ").replace("   4328.9 ", "      0.0 ")
    volumes = read_stats_volumes([write(tmp_path, "aseg.stats", text)], None).volumes
    assert not {"wm_hypointensities", "hippocampus"} & volumes.keys()


def test_dkt_is_another_segmenter(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, "aseg.stats", aseg()),
        write(tmp_path, "lh.stats", aparc("lh", atlas="aparc.DKTatlas")),
        write(tmp_path, "rh.stats", aparc("rh", atlas="aparc.DKTatlas")),
    ]
    found = read_stats_volumes(paths, None)
    assert found.segmenter == "freesurfer-7.4+dkt" and "temporal" in found.volumes


def test_columns_by_name_in_any_order(tmp_path: Path) -> None:
    text = "# hemi lh\n# ColHeaders NumVert GrayVol StructName\n10 2556 entorhinal\n11 9750 precuneus\n"
    table = read_stats_file(write(tmp_path, "lh.stats", text), None)
    assert table.volumes == {"ctx-lh-entorhinal": 2556, "ctx-lh-precuneus": 9750}
    assert table.segmenter is None


def test_icv_of_version_5_1(tmp_path: Path) -> None:
    text = aseg("5").replace("EstimatedTotalIntraCranialVol, eTIV", "IntraCranialVol, ICV").replace("75.2.9", "75.2.2")
    found = read_stats_volumes([write(tmp_path, "aseg.stats", text)], None)
    assert found.volumes["icv"] == pytest.approx(1420434, abs=1)
    assert found.segmenter == "freesurfer-5.1"


def test_version_in_a_build_stamp(tmp_path: Path) -> None:
    text = aseg().replace("cvs_version 7.4.1", "cvs_version freesurfer-linux-ubuntu22_x86_64-7.3.2-20220804-6354275")
    assert read_stats_volumes([write(tmp_path, "aseg.stats", text)], None).segmenter == "freesurfer-7.3"


def test_fastsurfer(tmp_path: Path) -> None:
    version = "# generating_program segstats.py\n# FastSurfer_version 2.3.3+cb2b5f8"
    text = aseg().replace(PROGRAM["aseg", "7"], version)
    assert read_stats_volumes([write(tmp_path, "aseg.stats", text)], None).segmenter == "fastsurfer-2.3"


def refused(paths: list[Path], root: Path | None = None) -> str:
    with pytest.raises(ScanError) as error:
        read_stats_volumes(paths, root)
    assert "secret" not in str(error.value) and str(paths[0].parent) not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("Volume_mm3 StructName normMean", "NVol StructName normMean", "no columns StructName and Volume_mm3"),
        ("# ColHeaders", "# Headers", "no columns"),
        ("# NRows 15", "# NRows 45", "cut off"),
        ("1880.1", "nan", "not a number from 0 up"),
        ("1880.1", "inf", "not a number from 0 up"),
        ("1880.1", "-1.0", "not a number from 0 up"),
        ("1880.1", "1.880,1", "not a number from 0 up"),
        ("Right-Hippocampus", "Left-Hippocampus ", "twice"),
        ("1420434.160521, mm^3", "none, mm^3", "not a number"),
        ("1420434.160521", "142043.4", "intracranial volume outside"),
        ("1420434.160521", "5420434.1", "intracranial volume outside"),
    ],
)
def test_aseg_that_cannot_be_used(tmp_path: Path, old: str, new: str, why: str) -> None:
    text = aseg()
    assert old in text
    assert why in refused([write(tmp_path, "aseg.stats", text.replace(old, new))])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace("# hemi lh\n", ""), "parcels without a hemisphere"),
        (lambda text: text.replace("# hemi lh", "# hemi both"), "neither lh nor rh"),
        (lambda text: text[:-40], "cut off"),
        (lambda text: text.encode("utf-16").decode("latin-1"), "no columns"),
        (lambda text: "", "no columns"),
        (lambda text: "\0" * 1000, "no columns"),
        (lambda text: "# a\n" * 2**21, "larger than any"),
    ],
)
def test_aparc_that_cannot_be_used(tmp_path: Path, change: object, why: str) -> None:
    assert callable(change)
    assert why in refused([write(tmp_path, "lh.aparc.stats", change(aparc("lh")))])


def test_tables_that_do_not_belong_together(tmp_path: Path) -> None:
    first, left, right = three(tmp_path, "7")
    assert refused([first, left, left]) == "stats: two tables of the same structures"
    assert refused([first, left, write(tmp_path, "old", aparc("rh", "6"))]) == "stats: tables of two versions"
    nearly = read_stats_volumes([first, write(tmp_path, "nearly", aparc("rh", etiv=1420434.9))], None)
    assert nearly.volumes["icv"] == 1420434.160521
    other = write(tmp_path, "other", aparc("rh", etiv=1500000.0))
    assert refused([first, left, other]) == "stats: tables with two intracranial volumes"
    assert right.exists()


def test_link_out_of_the_cohort(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "aseg.stats").symlink_to(write(tmp_path, "aseg.stats", aseg()))
    assert refused([cohort / "aseg.stats"], cohort) == "outside the folder of the cohort"
    assert refused([cohort / "none.stats"], cohort) == "no such file"
    assert refused([cohort], tmp_path) == "not a file"
