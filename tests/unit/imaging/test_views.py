"""The picture for vision-language models: its shape, orientation and scale, and where its views lie."""

from __future__ import annotations

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from clinical_reasoner.imaging.heads import FIELD_MM, SliceError
from clinical_reasoner.imaging.phantom_cohort import Phantom
from clinical_reasoner.imaging.views import (
    COLUMNS,
    PICTURE_PIXELS,
    VIEW_PIXELS,
    VIEWS,
    ZOOM_MM,
    views_picture,
)

Scan = tuple[np.ndarray, np.ndarray, np.ndarray]
HEAD, POSTERIOR, BASE, VENTRICLES = range(8, 12)
"""Views of the whole head."""


@pytest.fixture(scope="module")
def scan(phantom: Phantom) -> Scan:
    """Image, label map and affine with unequal sides, in RAS+ order, voxels of 3 mm."""
    affine = phantom.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (4, 0, 6)
    return phantom.t1[4:61, :, 6:58], phantom.labels[4:61, :, 6:58], affine


def view(picture: np.ndarray, number: int) -> np.ndarray:
    row, column = divmod(number, COLUMNS)
    return picture[row * VIEW_PIXELS : (row + 1) * VIEW_PIXELS, column * VIEW_PIXELS : (column + 1) * VIEW_PIXELS]


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference, grey levels."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_picture_is_a_grid_of_square_views(scan: Scan) -> None:
    picture = views_picture(*scan)
    assert picture.shape == PICTURE_PIXELS and picture.dtype == np.uint8
    assert PICTURE_PIXELS == (3 * VIEW_PIXELS, 4 * VIEW_PIXELS) and len(VIEWS) == 12
    assert all(view(picture, number).max() > 100 for number in range(len(VIEWS)))


@pytest.mark.parametrize(
    ("order", "signs"),
    [((0, 1, 2), (-1, 1, 1)), ((2, 0, 1), (1, -1, 1)), ((1, 2, 0), (-1, -1, -1)), ((2, 1, 0), (1, 1, -1))],
)
def test_order_of_the_voxels_does_not_matter(scan: Scan, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    image, labels, affine = scan
    orientation = np.array(list(zip(order, signs, strict=True)))
    stored = affine @ inv_ornt_aff(orientation, image.shape)  # type: ignore[no-untyped-call]
    turned = [apply_orientation(array, orientation) for array in (image, labels)]  # type: ignore[no-untyped-call]
    np.testing.assert_array_equal(views_picture(turned[0], turned[1], stored), views_picture(*scan))
    np.testing.assert_array_equal(views_picture(turned[0], None, stored), views_picture(image, None, affine))


@pytest.mark.parametrize(
    ("axis", "half", "numbers"),
    [(0, "left", range(12)), (2, "upper", [*range(8), HEAD, POSTERIOR]), (1, "upper", [BASE, VENTRICLES])],
)
def test_right_is_on_the_left_and_the_front_or_the_top_is_up(
    scan: Scan, axis: int, half: str, numbers: list[int]
) -> None:
    image, labels, affine = scan
    # Bright is what lies to the patient's right, in front, or above the hippocampi.
    middle = np.argwhere(np.isin(labels, (17, 53))).mean(axis=0)[axis]
    bright = np.indices(labels.shape)[axis] >= middle
    picture = views_picture(np.where(bright, image, image * 0.4), labels, affine)
    for number in numbers:
        first, last = np.array_split(view(picture, number), 2, axis=1 if half == "left" else 0)
        assert first.mean() > 1.3 * last.mean(), number


def test_size_of_the_head_shows(scan: Scan) -> None:
    image, labels, affine = scan
    larger = affine.copy()
    larger[:3, :3] *= 1.15
    widths = [np.ptp(np.nonzero(view(views_picture(image, labels, own), BASE) > 60)[1]) for own in (affine, larger)]
    assert widths[1] / widths[0] == pytest.approx(1.15, abs=0.04)
    head_mm = np.ptp(np.nonzero(image > 100)[0]) * 3 + 3
    assert widths[0] * FIELD_MM / VIEW_PIXELS == pytest.approx(head_mm, abs=8)


def test_zoomed_views_go_through_the_hippocampi_from_their_front_to_their_back(scan: Scan) -> None:
    image, labels, affine = scan
    without = views_picture(np.where(np.isin(labels, (17, 53)), 35, image), labels, affine)
    seen = np.abs(views_picture(*scan).astype(int) - without) > 40
    columns = []
    for number in range(8):
        rows, own = np.nonzero(view(seen, number))
        assert len(rows), number
        assert np.abs(rows - VIEW_PIXELS / 2).max() * ZOOM_MM / VIEW_PIXELS < 20
        columns.append(own.mean())
    assert np.mean(columns) == pytest.approx(VIEW_PIXELS / 2 - 0.5, abs=2), "both sides, the middle between them"
    assert [one.offset_mm for one in VIEWS[:8]] == sorted((one.offset_mm for one in VIEWS[:8]), reverse=True)
    front_mm = np.argwhere(np.isin(labels, (17, 53)))[:, 1]
    assert np.ptp(front_mm) * 3 >= VIEWS[0].offset_mm - VIEWS[7].offset_mm - 6


def test_finer_voxels_give_the_same_picture(scan: Scan) -> None:
    image, labels, affine = scan
    for axis in range(3):
        fine = affine @ np.diag([0.5 if other == axis else 1.0 for other in range(3)] + [1.0])
        other = views_picture(np.repeat(image, 2, axis=axis), np.repeat(labels, 2, axis=axis), fine)
        assert apart(other, views_picture(*scan)) < 5, axis


def test_without_a_label_map_views_go_by_position(scan: Scan) -> None:
    image, labels, affine = scan
    by_position = views_picture(image, None, affine)
    one_side = views_picture(image, np.where(labels == 53, 0, labels), affine)
    np.testing.assert_array_equal(one_side, by_position)
    assert 0 < apart(by_position, views_picture(*scan)) < 25


def test_scan_that_ends_before_the_views_is_black_there(scan: Scan) -> None:
    image, labels, affine = scan
    short = views_picture(image[:, 20:], labels[:, 20:], affine)
    assert view(short, POSTERIOR).max() == 0
    assert view(short, HEAD).max() > 100


@pytest.mark.parametrize(
    ("image", "labels", "affine", "message"),
    [
        (np.zeros((8, 9, 10)), None, np.eye(4), "the image is empty"),
        (np.ones((8, 9, 10, 2)), None, np.eye(4), "not a volume of three dimensions"),
        (np.ones((8, 9, 10)), np.ones((8, 10, 9)), np.eye(4), "different grids"),
        (np.ones((8, 9, 10)), None, np.diag([1.0, 0, 1, 1]), "the affine does not say"),
    ],
)
def test_what_cannot_be_shown(image: np.ndarray, labels: np.ndarray | None, affine: np.ndarray, message: str) -> None:
    with pytest.raises(SliceError, match=message):
        views_picture(image, labels, affine)
