"""From files that were sent to slices, a picture, grades and warnings: phantoms there and back."""

from __future__ import annotations

import gzip
import io
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.serving import UploadsConfig
from clinical_reasoner.evidence.w_scores import cohort_norms
from clinical_reasoner.imaging.labels import FREESURFER
from clinical_reasoner.imaging.measuring import OTHER_GRID
from clinical_reasoner.imaging.norms import Norm, NormRow, Norms
from clinical_reasoner.imaging.phantom_cohort import Phantom, draw_body, draw_phantom
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.imaging.slices import POSITIONS, slice_images
from clinical_reasoner.imaging.views import PICTURE_PIXELS, views_picture
from clinical_reasoner.serving.scan_grades import NO_NORMS, NO_SEGMENTER, NO_SIZE
from clinical_reasoner.serving.upload_errors import UploadError
from clinical_reasoner.serving.uploads import NO_PICTURE, Sent, Upload, UploadRules, read_upload
from clinical_reasoner.task import DiagnosisTask
from tests.unit.conftest import ROOT
from tests.unit.serving.upload_files import kept, nib, nifti, png

PATIENT = {"age_years": 74.0, "sex": "female", "mmse": 22}
HIPPOCAMPUS, VENTRICLES = "hippocampal_atrophy", "ventricle_enlargement"
CUT_POINTS = (-1.0, -2.0)


@pytest.fixture(scope="module")
def parameters() -> PhantomParameters:
    return load_config(PhantomParameters, ROOT / "configs/cohort/phantom.yaml")


@pytest.fixture(scope="module")
def phantom(population: Population, parameters: PhantomParameters) -> Phantom:
    return draw_phantom(population, parameters, 7, 1)


@pytest.fixture
def sent(tmp_path: Path, phantom: Phantom) -> Sent:
    files = {}
    for name, array in (("scan", phantom.t1), ("segmentation", phantom.labels)):
        image = nib.Nifti1Image(array, phantom.affine)
        files[name] = kept(tmp_path, gzip.compress(image.to_bytes()), f"{name}-0")
    return Sent(scan=files["scan"], segmentation=files["segmentation"], segmenter="phantom")


def norm_at(phantom: Phantom, w: float, **changed: object) -> Norm:
    """A norm by which this phantom's hippocampus has this w-score."""
    voxel_mm3 = 27.0
    volume = round(phantom.volumes["hippocampus"] / voxel_mm3) * voxel_mm3
    fields = {
        "measure": HIPPOCAMPUS,
        "segmenter": "phantom",
        "field_strength_t": None,
        "worse": "low",
        "intercept": log(volume) - 0.1 * w,
        "per_year": 0.0,
        "male": 0.0,
        "per_log_icv": 0.0,
        "sd": 0.1,
        "controls": 60,
        "sexes": ("female", "male"),
        "youngest_years": 55.0,
        "oldest_years": 90.0,
    }
    return Norm.model_validate({**fields, **changed})


def rules(task: DiagnosisTask, *norms: Norm, **limits: float) -> UploadRules:
    checked = UploadsConfig.model_validate(limits)
    return UploadRules(task=task, norms=Norms(norms=norms), cut_points=CUT_POINTS, limits=checked)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("w", "grade"), [(0.5, "No"), (-0.99, "No"), (-1.01, "Mild"), (-1.99, "Mild"), (-2.01, "Severe")]
)
def test_a_label_map_is_graded_by_its_w_score(
    sent: Sent, phantom: Phantom, task: DiagnosisTask, w: float, grade: str
) -> None:
    upload = read_upload(sent, PATIENT, rules(task, norm_at(phantom, w)))
    assert upload.grades == {HIPPOCAMPUS: grade}


def test_norms_of_a_cohort_grade_affected_bodies_worse(
    tmp_path: Path, population: Population, parameters: PhantomParameters, task: DiagnosisTask
) -> None:
    bodies = [draw_body(population, parameters, 11, index)[:2] for index in range(400)]
    controls = [
        NormRow({HIPPOCAMPUS: volumes["hippocampus"]}, one.age_years, one.sex, volumes["icv"], "phantom", None)
        for one, volumes in bodies
        if one.label == task.controls
    ]
    own = rules(task, *cohort_norms(controls, task, 50).norms)
    ranks: dict[str, list[int]] = {"NC": [], "AD": []}
    for index in range(80):
        phantom = draw_phantom(population, parameters, 23, index)
        label = phantom.patient.label
        if label in ranks and 63 <= (phantom.patient.age_years or 0) <= 90 and phantom.patient.sex:
            image = nib.Nifti1Image(phantom.labels, phantom.affine)
            file = kept(tmp_path, image.to_bytes(), "segmentation-0")
            fields = {"age_years": phantom.patient.age_years, "sex": phantom.patient.sex}
            grades = read_upload(Sent(segmentation=file, segmenter="phantom"), fields, own).grades
            ranks[label].append(task.grade_names.index(grades[HIPPOCAMPUS]))
    assert min(len(graded) for graded in ranks.values()) >= 10
    assert np.mean(ranks["AD"]) > np.mean(ranks["NC"]) + 0.3


def test_slices_and_picture_are_those_of_a_batch_run(sent: Sent, phantom: Phantom, task: DiagnosisTask) -> None:
    upload = read_upload(sent, {}, rules(task))
    expected = slice_images(phantom.t1, phantom.labels, phantom.affine)
    assert [name for name, _ in upload.slices] == list(POSITIONS)
    assert all(np.array_equal(pixels(content), expected[name]) for name, content in upload.slices)
    assert upload.picture is not None
    assert np.array_equal(pixels(upload.picture), views_picture(phantom.t1, phantom.labels, phantom.affine))


def test_a_scan_alone_and_a_label_map_alone_are_enough(sent: Sent, phantom: Phantom, task: DiagnosisTask) -> None:
    scan = read_upload(replace(sent, segmentation=None), PATIENT, rules(task))
    assert len(scan.slices) == len(POSITIONS) and scan.picture and not scan.grades and not scan.warnings
    segmentation = read_upload(replace(sent, scan=None), PATIENT, rules(task, norm_at(phantom, -3.0)))
    assert segmentation.grades == {HIPPOCAMPUS: "Severe"} and not segmentation.slices and segmentation.picture is None


def test_a_label_map_of_another_grid_still_grades(
    tmp_path: Path, sent: Sent, phantom: Phantom, task: DiagnosisTask
) -> None:
    halved = nib.Nifti1Image(phantom.t1[::2, ::2, ::2], phantom.affine @ np.diag([2, 2, 2, 1]))
    file = kept(tmp_path, halved.to_bytes(), "other")
    with pytest.raises(UploadError, match="4 mm long"):
        read_upload(replace(sent, scan=file), PATIENT, rules(task))
    shifted = nib.Nifti1Image(phantom.t1[:, :, 2:], phantom.affine)
    file = kept(tmp_path, shifted.to_bytes(), "other")
    upload = read_upload(replace(sent, scan=file), PATIENT, rules(task, norm_at(phantom, -1.5)))
    assert upload.grades == {HIPPOCAMPUS: "Mild"} and OTHER_GRID in upload.warnings and len(upload.slices) == 4


def warned(sent: Sent, fields: dict[str, object], own: UploadRules) -> str:
    """The only warning, where nothing is graded."""
    upload = read_upload(replace(sent, scan=None), fields, own)
    assert not upload.grades
    (warning,) = upload.warnings
    return warning


def test_without_what_norms_need_there_are_words_and_no_grades(
    sent: Sent, phantom: Phantom, task: DiagnosisTask
) -> None:
    own = rules(task, norm_at(phantom, -3.0), norm_at(phantom, -3.0, segmenter="freesurfer-7+voxels"))
    assert warned(replace(sent, segmenter=None), PATIENT, own) == NO_SEGMENTER
    unknown = warned(replace(sent, segmenter="Zebulon-9"), PATIENT, own)
    assert unknown.endswith("there are of: freesurfer-7, phantom") and "Zebulon" not in unknown
    assert warned(sent, {"sex": "female"}, own).endswith("norms need age_years in `patient`")
    assert warned(sent, {}, own).endswith("norms need age_years and sex in `patient`")
    outside = "segmentation: not graded, as no norm covers them at this age and sex: hippocampal_atrophy, "
    assert warned(sent, {**PATIENT, "age_years": 97.0}, own).startswith(outside)
    assert warned(sent, PATIENT, rules(task)) == NO_NORMS
    at_3_t = rules(task, norm_at(phantom, -3.0, field_strength_t=3.0))
    assert warned(sent, PATIENT, at_3_t).endswith("field_strength_t: 3")
    assert read_upload(replace(sent, field_strength_t=2.89), PATIENT, at_3_t).grades == {HIPPOCAMPUS: "Severe"}


def test_a_label_map_with_tables_of_its_own_is_held_against_counted_volumes_alone(
    sent: Sent, phantom: Phantom, task: DiagnosisTask
) -> None:
    freesurfer = replace(sent, segmenter="freesurfer-7", scan=None)
    tables = rules(task, norm_at(phantom, -3.0, segmenter="freesurfer-7"))
    assert warned(freesurfer, PATIENT, tables).endswith("there are of: none")
    counted = rules(task, norm_at(phantom, -3.0, segmenter="freesurfer-7+voxels"))
    assert read_upload(freesurfer, PATIENT, counted).grades == {HIPPOCAMPUS: "Severe"}


def test_missing_structures_are_said_and_the_rest_is_graded(
    tmp_path: Path, sent: Sent, phantom: Phantom, task: DiagnosisTask
) -> None:
    labels = phantom.labels.copy()
    labels[labels == FREESURFER.ids["left-hippocampus"][0]] = FREESURFER.ids["csf"][0]
    file = kept(tmp_path, nib.Nifti1Image(labels, phantom.affine).to_bytes(), "cut")
    norms = (norm_at(phantom, -3.0), norm_at(phantom, 0.0, measure=VENTRICLES, worse="high", intercept=5.0))
    upload = read_upload(replace(sent, segmentation=file, scan=None), PATIENT, rules(task, *norms))
    assert upload.grades == {VENTRICLES: "Severe"}
    assert any(warning.startswith("segmentation: hippocampus: ") for warning in upload.warnings)
    labels[labels == FREESURFER.ids["csf"][0]] = 0
    file = kept(tmp_path, nib.Nifti1Image(labels, phantom.affine).to_bytes(), "cut")
    assert NO_SIZE in read_upload(replace(sent, segmentation=file, scan=None), PATIENT, rules(task, *norms)).warnings


def test_what_is_no_head_is_refused(tmp_path: Path, sent: Sent, phantom: Phantom, task: DiagnosisTask) -> None:
    with pytest.raises(UploadError) as raised:
        read_upload(replace(sent, segmentation=sent.scan), PATIENT, rules(task))
    assert raised.value.field == "segmentation" and "not a label map of this scheme" in raised.value.message
    file = kept(tmp_path, nib.Nifti1Image(phantom.labels, np.diag([1.0, 1, 1, 1])).to_bytes(), "small")
    with pytest.raises(UploadError, match="intracranial volume outside"):
        read_upload(Sent(segmentation=file), PATIENT, rules(task))
    with pytest.raises(UploadError) as wrong:
        read_upload(Sent(scan=kept(tmp_path, png(9, 7), "picture")), PATIENT, rules(task))
    assert (wrong.value.field, wrong.value.status) == ("scan", 415)


def test_pictures_are_shown_and_one_of_the_right_size_is_what_students_read(
    tmp_path: Path, sent: Sent, task: DiagnosisTask
) -> None:
    small, whole = png(9, 7), png(PICTURE_PIXELS[1], PICTURE_PIXELS[0])
    files = tuple(kept(tmp_path, content, f"slices-{index}") for index, content in enumerate((small, whole)))
    both = read_upload(Sent(slices=files), {}, rules(task))
    assert [name for name, _ in both.slices] == ["slice_1", "slice_2"]
    assert both.picture is None and both.warnings == (NO_PICTURE,)
    one = read_upload(Sent(slices=files[1:]), {}, rules(task))
    assert one.picture == one.slices[0][1] and not one.warnings
    scanned = read_upload(replace(sent, segmentation=None, slices=files), {}, rules(task))
    assert len(scanned.slices) == 6 and scanned.picture not in (None, one.picture) and not scanned.warnings


def test_a_picture_that_is_none_is_named_by_its_place(tmp_path: Path, task: DiagnosisTask) -> None:
    files = tuple(kept(tmp_path, content, f"slices-{index}") for index, content in enumerate((png(9, 7), nifti())))
    with pytest.raises(UploadError) as raised:
        read_upload(Sent(slices=files), {}, rules(task))
    assert (raised.value.field, raised.value.status) == ("slices.2", 415)
    with pytest.raises(UploadError) as many:
        read_upload(Sent(slices=files), {}, rules(task, max_pictures=1))
    assert (many.value.field, many.value.status) == ("slices", 413)


def test_nothing_sent_is_nothing_read(task: DiagnosisTask) -> None:
    assert read_upload(Sent(), {}, rules(task)) == Upload()


def test_rules_are_the_same_behind_json(phantom: Phantom, task: DiagnosisTask) -> None:
    own = rules(task, norm_at(phantom, -3.0))
    assert UploadRules.model_validate_json(own.model_dump_json()) == own
