"""`POST /v1/slices` over HTTP: phantoms in, slices and grades out, and refusals as problem details."""

from __future__ import annotations

import asyncio
import base64
import gzip
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.imaging.norms import Norms
from clinical_reasoner.imaging.phantom_cohort import Phantom, draw_phantom
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.imaging.slices import POSITIONS
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.serving.panel import Panel, student_role, teacher_role
from clinical_reasoner.serving.schema import PROBLEM_MEDIA_TYPE
from clinical_reasoner.serving.uploads import UploadRules
from clinical_reasoner.task import DiagnosisTask
from serve.scans import ScanRoom
from serve.slice_routes import add_slice_routes
from tests.unit.conftest import ROOT, student_of
from tests.unit.serve.desks import plain_desk, records_in
from tests.unit.serving.test_uploads import HIPPOCAMPUS, norm_at
from tests.unit.serving.upload_files import nib, nifti, voxels

PATIENT = '{"patient": {"age_years": 74, "sex": "female"}}'


@pytest.fixture(scope="module")
def phantom(population: Population) -> Phantom:
    return draw_phantom(population, load_config(PhantomParameters, ROOT / "configs/cohort/phantom.yaml"), 7, 1)


@pytest.fixture
def api(task: DiagnosisTask, phantom: Phantom, tmp_path: Path) -> FastAPI:
    rules = UploadRules(task=task, norms=Norms(norms=(norm_at(phantom, -1.5),)), cut_points=(-1.0, -2.0))

    panel = Panel(task, student_role(student_of("label_only")), teacher_role("someone/teacher", NO_EXEMPLARS), 0.8)
    desk = plain_desk(panel, {}, tmp_path)
    desk.scans = ScanRoom(rules)
    made = FastAPI()
    add_slice_routes(made, desk)
    return made


def post(api: FastAPI, **form: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            return await client.post("/v1/slices", **form)

    return asyncio.run(send())


def packed(array: Any, phantom: Phantom) -> bytes:
    return gzip.compress(nib.Nifti1Image(array, phantom.affine).to_bytes())


def test_a_phantom_comes_back_as_slices_and_grades(api: FastAPI, phantom: Phantom, tmp_path: Path) -> None:
    files = {"scan": packed(phantom.t1, phantom), "segmentation": packed(phantom.labels, phantom)}
    answer = post(api, files=files, data={"segmenter": "phantom", "request": PATIENT})
    body = answer.json()
    assert answer.status_code == 200 and body["findings"] == {HIPPOCAMPUS: "Mild"}
    assert [one["name"] for one in body["slices"]] == list(POSITIONS)
    assert all(base64.b64decode(one["png_base64"]).startswith(b"\x89PNG") for one in body["slices"])
    assert [(row.form, row.status, row.outcome) for row in records_in(tmp_path)] == [("slices", 200, "answered")]


def test_without_age_and_sex_there_are_slices_and_a_warning(api: FastAPI, phantom: Phantom) -> None:
    files = {"scan": packed(phantom.t1, phantom), "segmentation": packed(phantom.labels, phantom)}
    body = post(api, files=files, data={"segmenter": "phantom"}).json()
    assert body["findings"] == {} and len(body["slices"]) == 4
    assert body["warnings"] == ["segmentation: not graded, as norms need age_years and sex in `patient`"]


def test_a_refusal_is_a_problem_that_names_the_field(api: FastAPI, tmp_path: Path) -> None:
    for form, status, field in (
        ({"files": {"scan": nifti(voxels(shape=(16, 18, 20, 3)))}}, 422, "scan"),
        ({"files": {"segmentation": b"Zebulon"}}, 415, "segmentation"),
        ({"files": {"slices": b"Zebulon"}}, 415, "slices"),
        ({"data": {"segmenter": "x"}, "files": {}}, 415, "(body)"),
        ({"files": {"request": (None, PATIENT)}}, 422, "scan"),
        ({"files": {"scan": b"x", "request": (None, '{"patient": {"mmse": 99}}')}}, 422, "patient.mmse"),
        ({"json": {}}, 415, "(body)"),
    ):
        answer = post(api, **cast(dict[str, Any], form))
        assert answer.headers["content-type"] == PROBLEM_MEDIA_TYPE
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (status, field)
        assert "Zebulon" not in answer.text and "99" not in answer.text
    assert [(row.form, row.outcome) for row in records_in(tmp_path)] == [("slices", "refused")] * 7


def test_the_form_and_its_problems_are_documented(api: FastAPI) -> None:
    operation = api.openapi()["paths"]["/v1/slices"]["post"]
    schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"scan", "segmentation", "segmenter", "slices"} < schema["properties"].keys()
    assert {"200", "413", "415", "422", "429", "503"} <= operation["responses"].keys()
