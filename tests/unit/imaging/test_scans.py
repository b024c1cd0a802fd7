"""Opening scans: formats and orientations give one and the same image; broken and hostile files are refused in time."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from clinical_reasoner.imaging.scans import LabelMap, ScanError, Volume, open_label_map, open_volume
from tests.unit.imaging.images import AFFINE, SHAPE, header_of, labels, reason, write

nib: Any = nibabel  # typed in part
NIBABEL_DATA = Path(nib.__file__).parent / "tests" / "data"


@pytest.mark.parametrize(
    ("name", "kind", "dtype"),
    [
        ("a.nii", nib.Nifti1Image, np.int16),
        ("a.nii.gz", nib.Nifti1Image, np.uint8),
        ("A.NII.GZ", nib.Nifti1Image, np.float32),
        ("a.nii", nib.Nifti2Image, np.float64),
        ("a.nii.gz", nib.Nifti2Image, np.int32),
        ("a.mgz", nib.MGHImage, np.int32),
        ("a.mgz", nib.MGHImage, np.float32),
        ("a.mgh", nib.MGHImage, np.uint8),
    ],
)
def test_formats(tmp_path: Path, name: str, kind: Any, dtype: Any) -> None:
    file = write(tmp_path / name, labels().astype(dtype), kind=kind)
    label_map, volume = open_label_map(file, tmp_path), open_volume(file, None)
    assert isinstance(label_map, LabelMap) and label_map.array.dtype == np.int32
    assert isinstance(volume, Volume) and volume.array.dtype == np.float32
    for scan in (label_map, volume):
        np.testing.assert_array_equal(scan.array, labels())
        np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)
        assert scan.voxel_mm3 == pytest.approx(12)
        assert scan.zooms_mm == pytest.approx((2, 2, 3))


def test_big_endian(tmp_path: Path) -> None:
    file = tmp_path / "a.nii"
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(labels().astype(">i2"), AFFINE, header), file)
    assert file.read_bytes()[:4] == (348).to_bytes(4, "big")
    np.testing.assert_array_equal(open_label_map(file, None).array, labels())


@pytest.mark.parametrize("axes", ["RAS", "LAS", "LPI", "RSA", "PIR", "ASL", "SRP"])
def test_orientation_changes_nothing(tmp_path: Path, axes: str) -> None:
    image = nib.Nifti1Image(labels(), AFFINE)
    turn = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes))
    nib.save(image.as_reoriented(turn), tmp_path / "a.nii.gz")
    assert "".join(nib.aff2axcodes(nib.load(tmp_path / "a.nii.gz").affine)) == axes
    scan = open_label_map(tmp_path / "a.nii.gz", None)
    np.testing.assert_array_equal(scan.array, labels())
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-5)
    assert scan.voxel_mm3 == pytest.approx(12, rel=1e-6)


@pytest.mark.parametrize("degrees", [7.0, -25.0])
def test_oblique(tmp_path: Path, degrees: float) -> None:
    angle = np.radians(degrees)
    turned = np.eye(4)
    turned[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    scan = open_label_map(write(tmp_path / "a.nii", labels()[::-1], turned @ AFFINE @ np.diag([-1, 1, 1, 1])), None)
    np.testing.assert_array_equal(scan.array, labels())
    assert scan.voxel_mm3 == pytest.approx(12, rel=1e-5)
    assert scan.zooms_mm == pytest.approx((2, 2, 3), rel=1e-5)


def test_one_frame_is_a_volume(tmp_path: Path) -> None:
    np.testing.assert_array_equal(open_volume(write(tmp_path / "a.nii", labels()[..., None]), None).array, labels())


def test_scaled_intensities(tmp_path: Path) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(header_of(labels(), scl_slope=0.5, scl_inter=-1.0))
    np.testing.assert_allclose(open_volume(file, None).array, labels() * 0.5 - 1)
    with pytest.raises(ScanError, match="not whole numbers"):
        open_label_map(file, None)


def test_extension_and_tags_are_passed_over(tmp_path: Path) -> None:
    image = nib.Nifti1Image(labels(), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"name of a person"))
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(open_label_map(tmp_path / "a.nii.gz", None).array, labels())
    content = gzip.decompress(write(tmp_path / "b.mgz", labels().astype(np.int32), kind=nib.MGHImage).read_bytes())
    (tmp_path / "b.mgz").write_bytes(gzip.compress(content + b"\0\0\0\3mri_convert" * 100))
    np.testing.assert_array_equal(open_label_map(tmp_path / "b.mgz", None).array, labels())


def test_files_of_nibabel() -> None:
    scan = open_volume(NIBABEL_DATA / "anatomical.nii", NIBABEL_DATA)
    image = nib.as_closest_canonical(nib.load(NIBABEL_DATA / "anatomical.nii"))
    np.testing.assert_array_equal(scan.array, image.get_fdata())
    assert scan.voxel_mm3 == pytest.approx(8)
    for name, why in {
        "example4d.nii.gz": "4-D",
        "example_nifti2.nii.gz": "4-D",
        "functional.nii": "4-D",
        "test.mgz": "4-D",
        "standard.nii.gz": "fewer than 8 voxels",
        "resampled_anat_moved.nii": "fewer than 8 voxels",
        "nifti1.hdr": "its name ends in none of",
        "row_major.dconn.nii": "no orientation",
    }.items():
        with pytest.raises(ScanError, match=why):
            open_volume(NIBABEL_DATA / name, NIBABEL_DATA)


@pytest.mark.parametrize(
    ("value", "why"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (-np.inf, "NaN or infinite")]
)
def test_not_a_number(tmp_path: Path, value: float, why: str) -> None:
    array = labels().astype(np.float32)
    array[5, 5, 5] = value
    assert why in reason(write(tmp_path / "a.nii.gz", array))


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (labels() * 0.3, "not whole numbers"),
        (labels() - 1, "labels outside 0 to 65535"),
        (labels().astype(np.int32) * 100_000, "labels outside 0 to 65535"),
        (labels().astype(np.float64) * 1e30, "labels outside 0 to 65535"),
    ],
)
def test_what_is_a_volume_and_no_label_map(tmp_path: Path, array: np.ndarray, why: str) -> None:
    file = write(tmp_path / "a.nii.gz", array)
    np.testing.assert_allclose(open_volume(file, None).array, array, rtol=1e-5)
    with pytest.raises(ScanError, match=why):
        open_label_map(file, None)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros(SHAPE, np.uint8), "all voxels are zero"),
        (np.zeros(SHAPE, np.float32), "all voxels are zero"),
        (np.full(SHAPE, 7, np.uint8), "all voxels are the same"),
        (np.zeros((*SHAPE, 2), np.uint8), "4-D"),
        (labels().astype(np.complex64), "complex voxels"),
        (np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "type of voxels"),
        (labels()[:, :, 0], "not a volume"),
        (labels()[:, :, :7], "fewer than 8 voxels on a side"),
    ],
)
def test_what_is_no_scan(tmp_path: Path, array: np.ndarray, why: str) -> None:
    assert why in reason(write(tmp_path / "a.nii", array))


def test_scaling_that_overflows(tmp_path: Path) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(header_of(labels().astype(np.float32) * 1e30, scl_slope=1e38))
    with pytest.raises(ScanError, match="NaN or infinite"):
        open_volume(file, None)
    with pytest.raises(ScanError, match="labels outside"):
        open_label_map(file, None)


def peak_bytes(file: Path, why: str) -> int:
    tracemalloc.start()
    try:
        assert why in reason(file)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_bomb_behind_an_image_is_read_no_further(tmp_path: Path) -> None:
    file = tmp_path / "a.nii.gz"
    with gzip.open(file, "wb", compresslevel=1) as stream:
        stream.write(nib.Nifti1Image(labels(), AFFINE).to_bytes())
        for _ in range(500):
            stream.write(bytes(2**20))
    assert 2_000_000 < file.stat().st_size < 5_000_000
    assert peak_bytes(file, "holds far more than its header says") < 80 * 2**20  # of 500
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(2**20)) * 500)
    assert reason(tmp_path / "b.nii.gz") == "not an image"


def test_small_file_that_claims_much_is_not_given_the_memory(tmp_path: Path) -> None:
    content = header_of(labels(), dim=[3, 512, 512, 512, 1, 1, 1, 1])
    plain, packed = tmp_path / "a.nii", tmp_path / "a.nii.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    assert peak_bytes(plain, "cut off") < 2**20 and peak_bytes(packed, "cut off") < 2**20


def test_uncompressed_excess(tmp_path: Path) -> None:
    file = write(tmp_path / "a.nii")
    os.truncate(file, 20 * 2**20)
    assert reason(file) == "holds far more than its header says"


def test_gzip(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 50, (24, 24, 24)).astype(np.uint8)
    content = write(tmp_path / "good.nii.gz", array).read_bytes()
    flipped = bytearray(content)
    flipped[-6] ^= 1  # in the checksum
    file = tmp_path / "a.nii.gz"
    for broken, why in (
        (content[:-4], "its gzip is cut off"),
        (content[: len(content) // 2], "its gzip is cut off"),
        (content[:100], "cut off"),
        (content[:12], "not an image"),
        (content[:2], "not an image"),
        (bytes(flipped), "its gzip is damaged"),
        (content[:2] + b"\xff" * 400, "its gzip is damaged"),
        (content + b"more", "its gzip is damaged"),
        (gzip.compress(b""), "not an image"),
        (b"", "not an image"),
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 200_000, "not an image"),  # a name without an end
    ):
        file.write_bytes(broken)
        assert why in reason(file)
    file.write_bytes(content + bytes(512))  # as tape archives pad
    np.testing.assert_array_equal(open_label_map(file, None).array, array)
    members = gzip.decompress(content)
    file.write_bytes(b"".join(gzip.compress(members[start : start + 1000]) for start in range(0, len(members), 1000)))
    np.testing.assert_array_equal(open_label_map(file, None).array, array)


def test_gzip_under_a_plain_name_and_the_other_way(tmp_path: Path) -> None:
    packed = write(tmp_path / "a.nii.gz").rename(tmp_path / "b.nii")
    plain = write(tmp_path / "a.nii").rename(tmp_path / "c.nii.gz")
    for file in (packed, plain):
        np.testing.assert_array_equal(open_label_map(file, None).array, labels())


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.nii", "a table of values\n".encode("utf-16"), "not an image"),
        ("a.nii.gz", b"<html>404 Not Found</html>" * 40, "not an image"),
        ("a.mgz", b"\1\0\0\0" + bytes(400), "not an image"),
        ("a.nii", header_of(labels())[:200], "cut off in its header"),
        ("a.mgh", b"\0\0\0\1" + bytes(100), "cut off in its header"),
        ("a.mgh", b"\0\0\0\1" + bytes(400), "tells no orientation"),
        ("a.nrrd", header_of(labels()), "its name ends in none of .nii, .nii.gz, .mgz"),
    ],
)
def test_not_an_image(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert why in reason(tmp_path / name)


def test_links(tmp_path: Path) -> None:
    cohort, other = tmp_path / "cohort", tmp_path / "other"
    (cohort / "annex").mkdir(parents=True)
    other.mkdir()
    write(cohort / "annex" / "a.nii")
    write(other / "b.nii")
    (cohort / "inside.nii").symlink_to(Path("annex") / "a.nii")
    (cohort / "outside.nii").symlink_to(other / "b.nii")
    (cohort / "folder").symlink_to(other, target_is_directory=True)
    (cohort / "dead.nii").symlink_to(tmp_path / "none.nii")
    (cohort / "loop.nii").symlink_to(cohort / "loop.nii")
    (tmp_path / "linked").symlink_to(cohort, target_is_directory=True)
    for root in (cohort, tmp_path / "linked"):
        assert open_label_map(cohort / "inside.nii", root).array.any()
        assert open_label_map(tmp_path / "linked" / "inside.nii", root).array.any()
    assert open_label_map(cohort / "outside.nii", None).array.any()
    outside = "outside the folder of the cohort"
    assert reason(cohort / "outside.nii", cohort) == outside
    assert reason(cohort / "folder" / "b.nii", cohort) == outside
    assert reason(cohort / ".." / "other" / "b.nii", cohort) == outside
    assert reason(cohort / "dead.nii", cohort) == "no such file"
    assert reason(cohort / "loop.nii", cohort) == "no such file"


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.nii").mkdir()
    os.mkfifo(tmp_path / "pipe.nii")  # opening it would wait for ever
    assert reason(tmp_path / "folder.nii") == reason(tmp_path / "pipe.nii") == "not a file"
    assert reason(tmp_path / "none.nii") == reason(tmp_path / f"{'x' * 300}.nii") == "no such file"
    assert reason(tmp_path / "nul\0.nii") == "no such file"
