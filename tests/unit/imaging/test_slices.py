"""Slices: which ones, their orientation and scale, that the file's voxel order does not matter, what is refused."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff
from PIL import Image

from clinical_reasoner.cohort.visits import REGIONS
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.imaging.heads import FIELD_MM, SliceError
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters, draw_volumes
from clinical_reasoner.imaging.phantoms import render_phantom
from clinical_reasoner.imaging.slices import (
    POSITIONS,
    choose_slices,
    montage,
    save_png,
    slice_images,
)

FILE = Path(__file__).parents[3] / "configs/cohort/phantom.yaml"
ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))
SIZE = 105
"""Pixels of 2 mm."""
Scan = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def scan() -> Scan:
    """Image, label map and affine with unequal sides, in RAS+ order, voxels of 3 mm."""
    volumes = draw_volumes(load_config(PhantomParameters, FILE), 0.5, 75.0, "female", np.random.default_rng(4))
    assert set(volumes) == set(REGIONS)
    labels, image, affine = render_phantom(volumes, np.random.default_rng(4))
    affine[:3, 3] += affine[:3, :3] @ (4, 0, 6)
    return image[4:61, :, 6:58], labels[4:61, :, 6:58], affine


def reoriented(scan: Scan, order: tuple[int, ...], signs: tuple[int, ...]) -> Scan:
    """The same scan with its voxels stored in another order."""
    image, labels, affine = scan
    orientation = np.array(list(zip(order, signs, strict=True)))
    stored = affine @ inv_ornt_aff(orientation, image.shape)  # type: ignore[no-untyped-call]
    turned = [apply_orientation(array, orientation) for array in (image, labels)]  # type: ignore[no-untyped-call]
    return turned[0], turned[1], stored


def extent(picture: np.ndarray) -> tuple[int, int]:
    """Height and width of what is not black, pixels."""
    rows, columns = np.nonzero(picture > 60)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_order_of_the_voxels_does_not_matter(scan: Scan, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    image, labels, affine = reoriented(scan, order, signs)
    np.testing.assert_array_equal(montage(image, labels, affine, 128), montage(*scan, 128))
    np.testing.assert_array_equal(montage(image, None, affine, 128), montage(scan[0], None, scan[2], 128))


def test_oblique_scan_has_the_content_of_its_voxels(scan: Scan) -> None:
    image, labels, affine = scan
    angle = np.deg2rad(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    oblique = affine.copy()
    oblique[:3] = turn @ affine[:3]
    np.testing.assert_array_equal(montage(image, labels, oblique, 128), montage(*scan, 128))
    np.testing.assert_array_equal(
        montage(*reoriented((image, labels, oblique), (2, 0, 1), (-1, 1, -1)), 128), montage(*scan, 128)
    )


def test_slices_by_label_map_are_the_largest_cross_sections(scan: Scan) -> None:
    image, labels, _ = scan
    chosen = {one.name: one for one in choose_slices(labels, image, (3, 3, 3))}
    assert list(chosen) == list(POSITIONS)
    hippocampus, ventricles = np.isin(labels, (17, 53)), np.isin(labels, (4, 43))
    sections = hippocampus.sum(axis=(0, 2))
    assert sections[chosen["coronal_hippocampus"].index] == sections.max()
    front = chosen["coronal_hippocampus_front"].index
    assert front > chosen["coronal_hippocampus"].index and sections[front] > 0
    assert ventricles[:, :, chosen["axial_ventricles"].index].sum() == ventricles.sum(axis=(0, 1)).max()
    left = (labels == 17).sum(axis=(1, 2))
    assert left[chosen["sagittal_hippocampus"].index] == left.max()
    assert [one.plane for one in chosen.values()] == ["coronal", "coronal", "axial", "sagittal"]


def test_slices_by_position_are_near_those_by_label_map(scan: Scan) -> None:
    image, labels, _ = scan
    for by_label, by_place in zip(
        choose_slices(labels, image, (3, 3, 3)), choose_slices(None, image, (3, 3, 3)), strict=True
    ):
        assert by_label.name == by_place.name
        assert abs(by_label.index - by_place.index) * 3 <= 10


def test_slices_that_the_label_map_cannot_place_go_by_position(scan: Scan) -> None:
    image, labels, _ = scan
    only_ventricles = np.where(np.isin(labels, (4, 43)), labels, 0)
    by_label, by_place, mixed = (choose_slices(one, image, (3, 3, 3)) for one in (labels, None, only_ventricles))
    assert mixed == (by_place[0], by_place[1], by_label[2], by_place[3])


@pytest.mark.parametrize(
    ("name", "axis", "half"),
    [
        ("coronal_hippocampus", 0, "left"),
        ("coronal_hippocampus_front", 2, "upper"),
        ("axial_ventricles", 0, "left"),
        ("axial_ventricles", 1, "upper"),
        ("sagittal_hippocampus", 1, "left"),
        ("sagittal_hippocampus", 2, "upper"),
    ],
)
def test_right_is_on_the_left_and_the_front_is_up_or_left(scan: Scan, name: str, axis: int, half: str) -> None:
    image, labels, affine = scan
    # Bright is what lies to the patient's right, in front, or above.
    bright = np.indices(labels.shape)[axis] >= labels.shape[axis] / 2
    picture = slice_images(np.where(bright, image, image * 0.4), labels, affine, SIZE)[name]
    first, last = np.array_split(picture, 2, axis=1 if half == "left" else 0)
    assert first.mean() > 1.5 * last.mean()


def test_montage_is_its_slices(scan: Scan) -> None:
    whole = montage(*scan, 2 * SIZE)
    single = list(slice_images(*scan, SIZE).values())
    assert whole.shape == (2 * SIZE, 2 * SIZE) and whole.dtype == np.uint8
    for picture, (row, column) in zip(single, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        tile = whole[row * SIZE : (row + 1) * SIZE, column * SIZE : (column + 1) * SIZE]
        np.testing.assert_array_equal(tile, picture)


def test_pictures_have_one_scale_whatever_the_voxels(scan: Scan) -> None:
    image, labels, affine = scan
    head = np.argwhere(image > 100)
    size_mm = (np.ptp(head, axis=0) + 1) * 3
    pixel_mm = FIELD_MM / SIZE
    height, width = extent(slice_images(*scan, SIZE)["axial_ventricles"])
    assert (height * pixel_mm, width * pixel_mm) == pytest.approx((size_mm[1], size_mm[0]), abs=8)
    flat = affine @ np.diag([1, 1, 2, 1])
    fine = affine @ np.diag([0.5, 1, 1, 1])
    for other in (
        slice_images(image[:, :, ::2], labels[:, :, ::2], flat, SIZE),
        slice_images(np.repeat(image, 2, axis=0), np.repeat(labels, 2, axis=0), fine, SIZE),
    ):
        for name, picture in slice_images(*scan, SIZE).items():
            assert extent(other[name]) == pytest.approx(extent(picture), abs=4), name


def test_unit_and_offset_of_the_intensity_do_not_matter(scan: Scan) -> None:
    image, labels, affine = scan
    expected = montage(*scan, 128).astype(int)
    for other in (image * 37.0, image * 0.004 - 2.0, image.astype(np.int16) * 100, image.astype(">f4")):
        assert np.abs(montage(other, labels, affine, 128).astype(int) - expected).max() <= 1
    assert expected.min() == 0 and expected.max() == 255


def test_stray_voxels_and_noise_do_not_move_the_slices(scan: Scan) -> None:
    image, _, _ = scan
    stray = image.copy()
    stray[0, 0, 0] = stray[-1, -1, -1] = stray[0, -1, 3] = 255
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255)
    expected = choose_slices(None, image, (3, 3, 3))
    assert choose_slices(None, stray, (3, 3, 3)) == expected
    for one, other in zip(choose_slices(None, noisy, (3, 3, 3)), expected, strict=True):
        assert abs(one.index - other.index) <= 1


def test_a_long_neck_does_not_move_the_slices(scan: Scan) -> None:
    image, _, _ = scan
    neck = np.zeros((*image.shape[:2], 40), dtype=image.dtype)
    neck[18:38, 20:44] = 120
    with_neck = choose_slices(None, np.concatenate([neck, image], axis=2), (3, 3, 3))
    for one, other in zip(with_neck, choose_slices(None, image, (3, 3, 3)), strict=True):
        assert abs(one.index - other.index - 40 * (one.plane == "axial")) * 3 <= 12


def test_stripped_skull(scan: Scan) -> None:
    image, labels, affine = scan
    stripped = np.where(labels > 0, image, 0)
    wide = np.zeros((150, 120, 130), dtype=np.uint8)
    wide[60:117, 50:114, 50:102] = stripped
    for one, other in zip(choose_slices(None, wide, (3, 3, 3)), choose_slices(None, stripped, (3, 3, 3)), strict=True):
        assert one.index - other.index == {"coronal": 50, "axial": 50, "sagittal": 60}[one.plane]
    assert montage(stripped, labels, affine, 128).max() == 255


def test_not_a_number_is_black(scan: Scan) -> None:
    image, labels, affine = scan
    broken, dark = image - 500.0, image - 500.0
    broken[:20, :3], broken[:20, 3:9] = np.nan, np.inf
    dark[:20, :9] = dark.min()
    np.testing.assert_array_equal(montage(broken, labels, affine, 128), montage(dark, labels, affine, 128))


@pytest.mark.parametrize(
    ("image", "labels", "affine", "message"),
    [
        (np.zeros((8, 9, 10)), None, np.eye(4), "the image is empty"),
        (np.full((8, 9, 10), 7.0), None, np.eye(4), "the image is empty"),
        (np.full((8, 9, 10), np.nan), None, np.eye(4), "the image is empty"),
        (np.arange(720).reshape(8, 9, 10) % 2, None, np.eye(4), "the image has no contrast"),
        (np.ones((8, 9)), None, np.eye(4), "not a volume of three dimensions"),
        (np.ones((8, 9, 10, 2)), None, np.eye(4), "not a volume of three dimensions"),
        (np.ones((8, 0, 10)), None, np.eye(4), "not a volume of three dimensions"),
        (np.ones((8, 9, 10)), np.ones((8, 10, 9)), np.eye(4), "different grids"),
        (np.ones((8, 9, 10)), None, np.diag([1.0, 0, 1, 1]), "the affine does not say"),
        (np.ones((8, 9, 10)), None, np.full((4, 4), np.nan), "the affine does not say"),
        (np.ones((8, 9, 10)), None, np.eye(3), "the affine does not say"),
    ],
)
def test_what_cannot_be_shown(image: np.ndarray, labels: np.ndarray | None, affine: np.ndarray, message: str) -> None:
    with pytest.raises(SliceError, match=message):
        montage(image, labels, affine)


def test_png_holds_the_picture_and_nothing_else(tmp_path: Path, scan: Scan) -> None:
    picture = montage(*scan, 128)
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    save_png(picture, first)
    save_png(montage(*scan, 128), second)
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as opened:
        assert (opened.mode, opened.info) == ("L", {})
        np.testing.assert_array_equal(np.asarray(opened), picture)
