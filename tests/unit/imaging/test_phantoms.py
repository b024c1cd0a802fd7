"""Phantoms: exact volumes, the targets of their sources, where structures lie, and what does not fit."""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
import yaml

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.visits import REGIONS
from clinical_reasoner.config.loading import ConfigError, load_config
from clinical_reasoner.imaging.labels import FREESURFER, REGION_STRUCTURES
from clinical_reasoner.imaging.phantom_shapes import PARCELS
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters, draw_volumes
from clinical_reasoner.imaging.phantoms import render_phantom

FILE = Path(__file__).parents[3] / "configs/cohort/phantom.yaml"


@pytest.fixture(scope="module")
def parameters() -> PhantomParameters:
    return load_config(PhantomParameters, FILE)


def drawn(parameters: PhantomParameters, severity: float, seed: int, **fixed: float) -> dict[str, float]:
    return draw_volumes(parameters, severity, 75.0, "female", np.random.default_rng([7, seed])) | fixed


def measured(labels: np.ndarray, voxel_mm3: float) -> dict[str, float]:
    """Volumes by counting, mm3: the sum of a region's structures; everything in the skull for the ICV."""
    counts = np.bincount(labels.ravel(), minlength=3000) * voxel_mm3
    volumes = {
        region: sum(
            counts[label] for name in (*parts.required, *parts.optional) for label in FREESURFER.ids.get(name, ())
        )
        for region, parts in REGION_STRUCTURES.items()
    }
    return volumes | {"icv": counts[1:].sum()}


def centre_mm(labels: np.ndarray, affine: np.ndarray, structure: str) -> np.ndarray:
    voxels = np.argwhere(labels == FREESURFER.ids[structure][0])
    centre: np.ndarray = affine[:3, :3] @ voxels.mean(axis=0) + affine[:3, 3]
    return centre


@pytest.mark.parametrize("severity", [-0.6, 0.0, 1.0, 2.2])
def test_label_map_holds_the_drawn_volumes_exactly(parameters: PhantomParameters, severity: float) -> None:
    for seed in range(12):
        volumes = drawn(parameters, severity, seed)
        labels, _, affine = render_phantom(volumes, np.random.default_rng(seed))
        assert set(volumes) == set(REGIONS)
        assert measured(labels, abs(np.linalg.det(affine[:3, :3]))) == pytest.approx(volumes, rel=1e-9)


@pytest.mark.parametrize(("grid", "voxel_mm"), [(48, 4.0), (80, 2.5), (97, 2.0)])
def test_other_grids_hold_the_volumes_to_half_a_voxel(
    parameters: PhantomParameters, grid: int, voxel_mm: float
) -> None:
    volumes = drawn(parameters, 1.0, 3)
    labels, image, affine = render_phantom(volumes, np.random.default_rng(0), grid, voxel_mm)
    assert labels.shape == image.shape == (grid, grid, grid)
    half = voxel_mm**3 / 2
    assert measured(labels, voxel_mm**3) == pytest.approx(volumes, abs=half + 1e-6)
    np.testing.assert_allclose(affine[:3, 3], -(grid - 1) / 2 * voxel_mm)


def test_extremes_fit_the_head(parameters: PhantomParameters) -> None:
    for seed in range(150):
        rng = np.random.default_rng([8, seed])
        volumes = draw_volumes(parameters, rng.normal(1, 0.8), rng.uniform(55, 95), ("female", "male")[seed % 2], rng)
        labels, _, _ = render_phantom(volumes, rng)
        assert measured(labels, 27.0)["hippocampus"] == pytest.approx(volumes["hippocampus"], rel=0.005)


def test_same_generator_gives_the_same_phantom(parameters: PhantomParameters) -> None:
    first, second = drawn(parameters, 1.0, 5), drawn(parameters, 1.0, 5)
    assert first == second != drawn(parameters, 1.0, 6)
    one, same, other = (render_phantom(first, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for array, again in zip(one, same, strict=True):
        np.testing.assert_array_equal(array, again)
    assert (one[1] != other[1]).any()


def test_types_and_place(parameters: PhantomParameters) -> None:
    labels, image, affine = render_phantom(drawn(parameters, 0.0, 1), np.random.default_rng(1))
    assert labels.dtype == np.int16 and image.dtype == np.uint8
    np.testing.assert_array_equal(np.diag(affine), [3, 3, 3, 1])
    np.testing.assert_allclose(affine @ [31.5, 31.5, 31.5, 1], [0, 0, 0, 1])
    known = {label for name in FREESURFER.ids for label in FREESURFER.ids[name]}
    assert set(np.unique(labels).tolist()) - known == {0}
    assert {parcel.label(side) for parcel in PARCELS for side in ("left", "right")} <= set(labels.ravel().tolist())
    assert len(PARCELS) == 34


def test_structures_lie_where_they_belong(parameters: PhantomParameters) -> None:
    labels, _, affine = render_phantom(drawn(parameters, 0.0, 1), np.random.default_rng(1))
    at = {name: centre_mm(labels, affine, name) for name in FREESURFER.ids if (labels == FREESURFER.ids[name][0]).any()}
    for name, place in at.items():
        if name.startswith(("left-", "ctx-lh")):
            right = at[name.replace("left-", "right-").replace("ctx-lh", "ctx-rh")]
            assert place[0] < 0 < right[0]
            np.testing.assert_allclose(place * (-1, 1, 1), right, atol=3)
    hippocampus = at["right-hippocampus"]
    assert at["right-amygdala"][1] > hippocampus[1] + 15
    assert at["right-lateral-ventricle"][2] > hippocampus[2] + 20
    assert at["right-inf-lat-vent"][0] > hippocampus[0]
    assert at["ctx-rh-frontalpole"][1] > 50 > -50 > at["ctx-rh-pericalcarine"][1]
    assert at["ctx-rh-entorhinal"][2] < -40 < 40 < at["ctx-rh-paracentral"][2]


def test_image_has_the_contrast_of_t1(parameters: PhantomParameters) -> None:
    labels, image, _ = render_phantom(drawn(parameters, 1.0, 2), np.random.default_rng(2))
    csf, ventricle, cortex, white = (image[labels == label].mean() for label in (24, 4, 1028, 2))
    assert max(csf, ventricle) < 60 < cortex < 125 < white
    assert image[0].mean() < 10
    assert image[32, :10].max() > 150, "scalp"


def test_atrophy_leaves_csf(parameters: PhantomParameters) -> None:
    healthy = drawn(parameters, 0.0, 4, hippocampus=7020.0, temporal=94500.0)
    shrunken = healthy | {"hippocampus": 5400.0, "temporal": 81000.0}
    before, _, _ = render_phantom(healthy, np.random.default_rng(1))
    after, _, _ = render_phantom(shrunken, np.random.default_rng(1))
    lost = np.isin(before, (17, 53)) & ~np.isin(after, (17, 53))
    assert lost.sum() == 60
    assert (np.isin(after[lost], (24, 5, 44))).all()
    assert (after == 24).sum() > (before == 24).sum() + 500
    np.testing.assert_array_equal(after > 0, before > 0)


def test_ventricles_grow_rounder(parameters: PhantomParameters) -> None:
    def roundness(volume: float) -> float:
        labels, _, _ = render_phantom(drawn(parameters, 0.0, 4, lateral_ventricle=volume), np.random.default_rng(1))
        widths = np.ptp(np.argwhere(labels == 43), axis=0) + 1
        return float(widths[0] / widths[2])

    assert roundness(16200.0) < roundness(40500.0) < roundness(81000.0) < 1


def test_a_phantom_takes_a_tenth_of_a_second(parameters: PhantomParameters) -> None:
    volumes = drawn(parameters, 1.0, 2)
    render_phantom(volumes, np.random.default_rng(0))
    started = process_time()
    for seed in range(10):
        render_phantom(volumes, np.random.default_rng(seed))
    assert process_time() - started < 1.5


def test_volumes_have_the_means_of_their_sources(parameters: PhantomParameters, population: Population) -> None:
    means = {}
    for label, spec in population.labels.items():
        people = []
        for index in range(1500):
            rng = np.random.default_rng([11, index])
            severity = rng.normal(spec.severity.mean, spec.severity.sd)
            age = rng.normal(spec.age_years.mean, spec.age_years.sd)
            people.append(draw_volumes(parameters, severity, age, "female" if rng.random() < 0.5 else "male", rng))
        means[label] = {name: np.mean([volumes[name] for volumes in people]) for name in REGIONS}
    assert population.controls == population.labels["NC"]
    wanted = {
        "hippocampus": (7177, 6644, 5962, 0.02),
        "entorhinal": (3673, 3341, 2977, 0.02),
        "lateral_ventricle": (38000, 46000, 55000, 0.05),
    }
    for name, (normal, mild, severe, tolerance) in wanted.items():
        for label, mean in (("NC", normal), ("MCI", mild), ("AD", severe)):
            assert means[label][name] == pytest.approx(mean, rel=tolerance), (label, name)


def test_unknown_sex_is_refused(parameters: PhantomParameters) -> None:
    with pytest.raises(ValueError, match="sex must be female or male"):
        draw_volumes(parameters, 0.0, 75.0, "F", np.random.default_rng(0))


def test_volumes_are_whole_voxels(parameters: PhantomParameters) -> None:
    for volume in drawn(parameters, 0.3, 9).values():
        assert volume % parameters.step_mm3 == 0 and volume > 0


def test_men_have_larger_heads_and_the_old_larger_ventricles(parameters: PhantomParameters) -> None:
    def mean(name: str, age_years: float, sex: str) -> float:
        people = (draw_volumes(parameters, 0.0, age_years, sex, np.random.default_rng([3, i])) for i in range(300))
        return float(np.mean([volumes[name] for volumes in people]))

    assert mean("icv", 75, "male") > 1.08 * mean("icv", 75, "female")
    assert mean("lateral_ventricle", 85, "male") > 1.2 * mean("lateral_ventricle", 75, "male")
    assert mean("hippocampus", 85, "male") == pytest.approx(0.9185 * mean("hippocampus", 75, "male"), rel=0.005)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hippocampus": float("nan")}, "hippocampus has no volume"),
        ({"amygdala": -1.0}, "amygdala has no volume"),
        ({"temporal": 2700.0}, "temporal is smaller than its regions"),
        ({"lateral_ventricle": 2e6}, "lateral_ventricle does not fit the head"),
        ({"frontal": 9e5}, "frontal does not fit the head"),
        ({"icv": 5e6}, "icv does not fit a grid of 64 voxels of 3 mm"),
        ({"icv": 0.0}, "icv does not fit"),
    ],
)
def test_what_does_not_fit_is_named(parameters: PhantomParameters, change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_phantom(drawn(parameters, 0.0, 1) | change, np.random.default_rng(0))


def test_missing_region_is_named(parameters: PhantomParameters) -> None:
    volumes = drawn(parameters, 0.0, 1)
    del volumes["precuneus"]
    with pytest.raises(ValueError, match="precuneus has no volume"):
        render_phantom(volumes, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("regions", "hippocampus", "effect"), -4.0, "stay below 1, the SD of controls"),
        (("regions", "hippocampus", "cv"), 0.0, "greater than 0"),
        (("regions", "insula"), {}, "regions.insula"),
        (("subtypes", "typical", "share"), 0.5, "do not add up to 1"),
        (("step_mm3",), 0.0, "greater than 0"),
        (("noise",), 1.0, "unknown key"),
    ],
)
def test_impossible_parameters_are_refused(tmp_path: Path, place: tuple[str, ...], value: Any, message: str) -> None:
    raw = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    below = raw
    for key in place[:-1]:
        below = below[key]
    below[place[-1]] = value
    file = tmp_path / "phantom.yaml"
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(PhantomParameters, file)


def test_missing_region_and_sex_are_refused(parameters: PhantomParameters) -> None:
    raw = parameters.model_dump()
    with pytest.raises(ValueError, match=r"differ by .'occipital'"):
        PhantomParameters.model_validate(
            raw | {"regions": {name: one for name, one in raw["regions"].items() if name != "occipital"}}
        )
    with pytest.raises(ValueError, match="icv must have female and male"):
        PhantomParameters.model_validate(raw | {"icv": {"male": raw["icv"]["male"]}})
