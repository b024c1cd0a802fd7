"""3-D output: the same content however the scan is stored, at the place it says, and nothing of the header."""

from __future__ import annotations

import gzip
from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy.ndimage import center_of_mass

from clinical_reasoner.imaging.cubes import cube_voxels, head_cube, nifti_bytes
from clinical_reasoner.imaging.heads import FIELD_MM, SliceError
from clinical_reasoner.imaging.scans import ScanError

SIDE = 42
"""Voxels of 5 mm."""
ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def made_up() -> tuple[np.ndarray, np.ndarray]:
    """A box of 120, 150 and 92 mm over a dark floor, its right front upper corner white; oblique voxels."""
    image = np.zeros((50, 91, 32), np.float32)
    image[5:45, 8:83, 4:6] = 40
    image[5:45, 8:83, 6:29] = np.linspace(118, 122, 75)[None, :, None]
    image[15:35, 28:63, 12:20] = 150
    image[35:45, 68:83, 22:29] = 255
    turn, axes = np.deg2rad(4), np.diag([3.0, 2.0, 4.0])
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation @ axes, (-70, -80, -60)
    return image, affine


@pytest.fixture(scope="module")
def cube() -> tuple[np.ndarray, np.ndarray]:
    return head_cube(*made_up(), SIDE)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_order_of_the_voxels_does_not_matter(
    cube: tuple[np.ndarray, np.ndarray], order: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    image, affine = made_up()
    orientation = np.array(list(zip(order, signs, strict=True)))
    stored = affine @ inv_ornt_aff(orientation, image.shape)  # type: ignore[no-untyped-call]
    turned, place = head_cube(apply_orientation(image, orientation), stored, SIDE)  # type: ignore[no-untyped-call]
    np.testing.assert_array_equal(turned, cube[0])
    np.testing.assert_allclose(place, cube[1], atol=1e-9)


def test_scale_and_place_are_those_of_the_scan(cube: tuple[np.ndarray, np.ndarray]) -> None:
    voxels, place = cube
    assert voxels.dtype == np.uint8 and voxels.shape == (SIDE,) * 3 and voxels.max() == 255
    assert np.linalg.norm(place[:3, :3], axis=0) == pytest.approx(FIELD_MM / SIDE)
    inside = np.nonzero(voxels > 0)
    extents = [int(np.ptp(places)) + 1 for places in inside]
    assert extents == pytest.approx([120 / 5, 150 / 5, 92 / 5], abs=2)
    corner = np.array(center_of_mass(voxels > 200))
    assert (corner > SIDE / 2).all(), "right, front and up"
    image, affine = made_up()
    there = nib.affines.apply_affine(affine, np.array(center_of_mass(image > 200)))  # type: ignore[no-untyped-call]
    here = nib.affines.apply_affine(place, corner)  # type: ignore[no-untyped-call]
    assert here == pytest.approx(there, abs=5.0)


def test_file_holds_voxels_and_place_alone(cube: tuple[np.ndarray, np.ndarray]) -> None:
    content = nifti_bytes(*cube)
    assert content == nifti_bytes(*cube), "no time of writing"
    image: Any = nib.Nifti1Image.from_bytes(gzip.decompress(content))
    np.testing.assert_array_equal(np.asarray(image.dataobj), cube[0])
    np.testing.assert_allclose(image.affine, cube[1], atol=1e-4)
    assert not image.header.extensions and not image.header["descrip"].item() and not image.header["db_name"].item()


def test_what_has_no_content_is_refused() -> None:
    with pytest.raises(SliceError, match="the image is empty"):
        head_cube(np.zeros((10, 10, 10), np.float32), np.eye(4), SIDE)


def test_voxels_come_back_from_the_file_and_what_is_no_cube_says_so(cube: tuple[np.ndarray, np.ndarray]) -> None:
    voxels, place = cube
    whole = nifti_bytes(voxels, place)
    read = cube_voxels(whole)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, voxels)
    cut_off = gzip.compress(gzip.decompress(whole)[:-200])
    for broken in (b"", b"no gzip", whole[:-20], gzip.compress(b"no NIfTI"), gzip.compress(bytes(400)), cut_off):
        with pytest.raises(ScanError, match="cube: cannot be read"):
            cube_voxels(broken)
    for other in (voxels.astype(np.int16), voxels[:-1], voxels[0]):
        with pytest.raises(ScanError, match="are no cube of grey values"):
            cube_voxels(nifti_bytes(other, place))
