"""The page in headless Chromium against the real HTTP side, over engines that are plain objects."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters, draw_volumes
from clinical_reasoner.imaging.phantoms import render_phantom
from clinical_reasoner.operating_point import OperatingPoint, Tier
from clinical_reasoner.rationales.exemplars import NO_EXEMPLARS
from clinical_reasoner.serving.panel import ModelUnavailableError, Panel, Prompt, Reply, student_role, teacher_role
from serve.api import build_api
from serve.page_form import page_form
from serve.page_routes import FOLDER, TYPES
from tests.browser import NARROW, WIDE, chromium, opened, served
from tests.unit.conftest import student_of
from tests.unit.serve.desks import plain_desk
from tests.unit.serving.engines import TASK, PlainEngine, reply

PHANTOM = Path(__file__).parents[3] / "configs/cohort/phantom.yaml"
POINT = OperatingPoint(
    task=TASK.name,
    labels=TASK.label_names,
    prompt_version="test",
    student=Tier(model="label_only", ask="direct", temperature=1.0, quantile=0.75, visits=100),
    teacher=Tier(model="teacher", ask="diagnose_label_first", temperature=1.0, quantile=0.75, visits=100),
    threshold=0.8,
    refer_below=0.6,
    coverage=0.9,
    target="of these tests",
)
PANEL = Panel(
    TASK,
    student_role(student_of("label_only")),
    teacher_role("someone/teacher", NO_EXEMPLARS, ask="diagnose_label_first"),
    threshold=0.8,
    operating_point=POINT,
)
UNSURE, SURE = reply("direct", "AD", 0.5), reply("direct", "AD", 0.93)
RATIONALE = (
    "The patient is 76 years old. The MMSE score of 22 out of 30 is low. The MRI shows mild hippocampal atrophy and "
    "severe amygdala atrophy, while there is no frontal atrophy. Overall, this fits mild cognitive impairment best."
)
TEACHER = reply("diagnose_label_first", "MCI", 0.84, RATIONALE)
DOWN = ModelUnavailableError("teacher", 503, "no answer")
HELD_AFTER = 20
"""Pieces."""


@dataclass
class HeldEngine(PlainEngine):
    """Stops in the middle of its answer until it is let go."""

    go_on: threading.Event = field(default_factory=threading.Event)

    async def stream(self, prompt: Prompt, *, piecewise: bool) -> AsyncGenerator[Reply]:
        told = 0
        async for piece in super().stream(prompt, piecewise=piecewise):
            yield piece
            told += 1
            while told == HELD_AFTER and not self.go_on.is_set():
                await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@contextmanager
def page_over(
    browser: Browser, folder: Path, student: PlainEngine, teacher: PlainEngine, size: tuple[int, int] = WIDE
) -> Iterator[Page]:
    desk = plain_desk(PANEL, {"student": student, "teacher": teacher}, folder)
    with served(build_api(desk)) as address, opened(browser, address, size) as page:
        yield page


def choose(page: Page, finding: str, grade: str) -> None:
    page.locator(f"input[name=finding-{finding}][value={grade}]").check()


def enter(page: Page) -> None:
    """As RATIONALE has it, except for the hippocampus; nothing about the amygdala."""
    page.get_by_label("Age").fill("76")
    page.get_by_label("Sex").select_option("Female")
    page.get_by_label("MMSE").fill("22")
    choose(page, "hippocampal_atrophy", "Severe")
    choose(page, "frontal_atrophy", "No")


def has_no_overflow(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def claims(page: Page, verdict: str) -> list[str]:
    return [text.partition(" (")[0] for text in page.locator(f"#rationale mark.{verdict}").all_text_contents()]


def test_a_patient_is_entered_and_the_answer_arrives_in_pieces(browser: Browser, tmp_path: Path) -> None:
    teacher = HeldEngine(TEACHER)
    with page_over(browser, tmp_path, PlainEngine(UNSURE), teacher) as page:
        enter(page)
        page.get_by_role("button", name="Diagnose").click()
        rationale = page.locator("#rationale")
        expect(rationale).to_contain_text("The MMSE score")
        assert "severe amygdala atrophy" not in (rationale.text_content() or "")
        expect(page.locator("#diagnosis")).to_have_text("mild cognitive impairment")
        expect(page.locator("#tier")).to_have_text("teacher")
        expect(page.locator("#why")).to_contain_text("0.50 < 0.80")
        expect(page.locator("#bars .number")).to_have_text(["8.0 %", "84.0 %", "8.0 %"])
        teacher.go_on.set()
        expect(page.locator("#facts")).to_contain_text("someone/teacher")
        assert len(claims(page, "supported")) == 3 and claims(page, "contradicted") == ["mild hippocampal atrophy"]
        assert claims(page, "not_in_evidence") == ["severe amygdala atrophy"]
        expect(page.locator("#set")).to_contain_text("90 % coverage")
        expect(page.locator("#notice")).to_contain_text("Research use only")
        if file := os.environ.get("PAGE_SCREENSHOT"):
            page.screenshot(path=file)
    (prompt,) = teacher.prompts
    assert "is 76 years old" in str(prompt.messages[-1]["content"])


def test_a_second_submit_while_one_is_in_work_sends_nothing_and_stop_ends_it(browser: Browser, tmp_path: Path) -> None:
    teacher = HeldEngine(TEACHER)
    with page_over(browser, tmp_path, PlainEngine(UNSURE), teacher) as page:
        enter(page)
        page.get_by_role("radio", name="teacher").check()
        page.evaluate("for (const _ of [1, 2, 3]) document.getElementById('request').requestSubmit()")
        expect(page.locator("#rationale")).to_contain_text("The MMSE score")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#banners")).to_contain_text("do not rely on it")
        expect(page.get_by_role("button", name="Diagnose")).to_be_enabled()
    assert (len(teacher.prompts), teacher.closed) == (1, 1)


def test_what_must_be_known_stands_above_the_answer_on_a_small_screen(browser: Browser, tmp_path: Path) -> None:
    with page_over(browser, tmp_path, PlainEngine(UNSURE), PlainEngine(DOWN), NARROW) as page:
        page.get_by_role("button", name="Synthetic patient").click()
        page.get_by_role("button", name="Diagnose").click()
        expect(page.locator("#banners")).to_contain_text("Degraded answer")
        expect(page.locator("#banners")).to_contain_text("Refer to a clinician")
        expect(page.locator("#banners .warn")).to_contain_text("0.50 < 0.80; teacher not available.")
        expect(page.locator("#notice")).to_be_in_viewport()
        assert has_no_overflow(page)


def test_a_scan_shows_its_slices_at_once_and_goes_with_the_request(browser: Browser, tmp_path: Path) -> None:
    student = PlainEngine(SURE)
    with page_over(browser, tmp_path, student, PlainEngine(DOWN)) as page:
        enter(page)
        page.locator("#upload-scan").set_input_files(phantom_scan(tmp_path))
        expect(page.locator("#gallery figure")).to_have_count(4)
        for width in page.locator("#gallery img").evaluate_all("all => all.map((one) => one.naturalWidth)"):
            assert width > 50
        with page.expect_request("**/v1/diagnose*") as sent:
            page.get_by_role("button", name="Diagnose").click()
        assert "multipart/form-data" in sent.value.headers["content-type"]
        expect(page.locator("#tier")).to_have_text("student")
        expect(page.locator("#facts")).to_contain_text("label_only")


def test_a_file_that_is_no_scan_is_said_beside_it(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(b"no scan")
    with page_over(browser, tmp_path, PlainEngine(SURE), PlainEngine(DOWN)) as page:
        page.locator("#upload-scan").set_input_files(tmp_path / "scan.nii")
        expect(page.locator("[data-field=scan] .field-error")).to_be_visible()
        page.get_by_role("button", name="Remove T1").click()
        expect(page.locator(".field-error")).to_have_count(0)


def test_what_banners_say_is_what_happened(browser: Browser, tmp_path: Path) -> None:
    mumble, gone = PlainEngine(Reply("I do not know.")), PlainEngine(ModelUnavailableError("student", 503, "no answer"))
    with page_over(browser, tmp_path / "a", PlainEngine(UNSURE), mumble) as page:
        enter(page)
        page.get_by_role("button", name="Diagnose").click()
        expect(page.locator("#banners .warn")).to_contain_text("teacher gave no usable answer")
        expect(page.locator("#banners")).not_to_contain_text("not available")
    unsure = PlainEngine(reply("diagnose_label_first", "MCI", 0.5, RATIONALE))
    with page_over(browser, tmp_path / "b", gone, unsure) as page:
        enter(page)
        page.get_by_role("button", name="Diagnose").click()
        expect(page.locator("#banners .alert")).to_contain_text("Student not available; teacher unsure: 0.50 < 0.60")
        expect(page.locator("#banners")).not_to_contain_text("models are unsure")


def test_errors_of_an_earlier_preview_do_not_pile_up(browser: Browser, tmp_path: Path) -> None:
    refused = {"status": 422, "title": "t", "detail": "d", "errors": [{"field": "patient.mmse", "message": "too high"}]}
    with page_over(browser, tmp_path, PlainEngine(SURE), PlainEngine(DOWN)) as page:
        page.route("**/v1/slices", lambda route: route.fulfill(status=422, json=refused))
        page.locator("#upload-segmentation").set_input_files(phantom_scan(tmp_path))
        expect(page.locator("[data-field='patient.mmse'] > .field-error")).to_have_count(1)
        with page.expect_response("**/v1/slices"):
            page.locator("#upload-scan").set_input_files(tmp_path / "scan.nii.gz")
        expect(page.locator("#scan-status")).to_have_text("")
        expect(page.locator("[data-field='patient.mmse'] > .field-error")).to_have_count(1)
        page.get_by_role("button", name="Remove T1").click()
        page.get_by_role("button", name="Remove label map").click()
        expect(page.locator(".field-error")).to_have_count(0)
        assert page.get_by_label("MMSE").get_attribute("aria-invalid") is None


def test_findings_of_a_label_map_are_marked_and_what_was_entered_stands(browser: Browser, tmp_path: Path) -> None:
    seen = {"slices": [], "findings": {"hippocampal_atrophy": "No", "amygdala_atrophy": "Mild"}, "warnings": ["thick"]}
    with page_over(browser, tmp_path, PlainEngine(SURE), PlainEngine(DOWN)) as page:
        page.route("**/v1/slices", lambda route: route.fulfill(json=seen))  # Grades need norms, which a run has.
        enter(page)
        (tmp_path / "labels.nii").write_bytes(b"read by nobody")
        page.locator("#upload-segmentation").set_input_files(tmp_path / "labels.nii")
        expect(page.locator(".finding.measured")).to_have_attribute("data-finding", "amygdala_atrophy")
        expect(page.locator("#scan-warnings")).to_have_text("thick")
        assert page.locator("input[name=finding-hippocampal_atrophy]:checked").input_value() == "Severe"
        choose(page, "amygdala_atrophy", "Severe")
        expect(page.locator(".finding.measured")).to_have_count(0)


@pytest.mark.parametrize(
    ("mmse", "place", "message"),
    [("42", "patient.mmse", "30"), ("many", "patient.mmse", "valid integer"), ("", "patient", "nothing is known")],
)
def test_what_cannot_be_used_is_said_at_its_field(
    browser: Browser, tmp_path: Path, mmse: str, place: str, message: str
) -> None:
    student = PlainEngine(SURE)
    with page_over(browser, tmp_path, student, PlainEngine(DOWN)) as page:
        page.get_by_label("MMSE").fill(mmse)
        page.get_by_role("button", name="Diagnose").click()
        expect(page.locator(f"[data-field='{place}'] > .field-error")).to_contain_text(message)
        expect(page.locator("#problem")).to_contain_text("The entry cannot be used")
        if mmse:
            expect(page.get_by_label("MMSE")).to_be_focused()
            page.get_by_label("MMSE").fill("22")
            expect(page.locator(".field-error")).to_have_count(0)
    assert student.prompts == []


def test_models_that_are_down_and_a_lost_network_are_said(browser: Browser, tmp_path: Path) -> None:
    with page_over(browser, tmp_path, PlainEngine(DOWN), PlainEngine(DOWN)) as page:
        enter(page)
        page.get_by_role("button", name="Diagnose").click()
        expect(page.locator("#problem")).to_contain_text("Not available at the moment")
        page.context.set_offline(True)
        page.get_by_role("button", name="Diagnose").click()
        expect(page.locator("#problem")).to_contain_text("could not be reached")
        expect(page.get_by_role("button", name="Diagnose")).to_be_enabled()


def test_markup_in_texts_is_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    attack = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    echoing = PlainEngine(reply("diagnose_label_first", "AD", 0.9, f"It says {attack} here."))
    with page_over(browser, tmp_path, PlainEngine(SURE), echoing) as page:
        page.get_by_role("radio", name="Free text").check()
        page.get_by_label("Description").fill(attack)
        page.get_by_role("radio", name="teacher").check()
        page.get_by_role("button", name="Diagnose").click()
        expect(page.locator("#facts")).to_contain_text("someone/teacher")
        expect(page.locator("#rationale")).to_contain_text(attack)
        assert page.locator("#rationale img, #rationale script").count() == 0
        assert "owned" not in page.title()


def test_a_file_fills_the_form_and_what_has_no_place_is_said(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "patient.json"
    file.write_text('{"patient": {"mmse": 24, "shoe_size": 44, "findings": {"frontal_atrophy": "Mild"}}}')
    with page_over(browser, tmp_path, PlainEngine(SURE), PlainEngine(DOWN)) as page:
        page.locator("#load-file").set_input_files(file)
        expect(page.get_by_label("MMSE")).to_have_value("24")
        assert page.locator("input[name=finding-frontal_atrophy]:checked").input_value() == "Mild"
        expect(page.locator("[data-field=load]")).to_contain_text("shoe_size")


def test_the_page_has_strict_headers_and_names_no_other_host(tmp_path: Path) -> None:
    texts = {file.name: file.read_text() for file in FOLDER.iterdir() if file.suffix in TYPES}
    for name, text in texts.items():
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == [], name
        assert "innerHTML" not in text and " style=" not in text, name
    with served(build_api(plain_desk(PANEL, {}, tmp_path))) as address:
        for path in ("", *(f"page/{name}" for name in texts if name != "index.html")):
            response = httpx.get(address + path)
            assert response.status_code == 200, path
            assert response.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' data:;")
            assert response.headers["x-content-type-options"] == "nosniff"
        for path in ("page/index.html", "page/..%2fapi.py", "page/none.js", "page/screenshot.png"):
            assert httpx.get(address + path).status_code == 404
        documented = httpx.get(address + "openapi.json").json()["paths"]
        assert not {"/", "/page/{file}", "/v1/form"} & set(documented)
    with served(build_api(plain_desk(PANEL, {}, tmp_path, page=False))) as address:
        assert httpx.get(address).status_code == 404


def test_the_form_is_made_of_the_task(tmp_path: Path) -> None:
    desk = plain_desk(PANEL, {}, tmp_path)
    form = page_form(TASK, desk.body_model, desk.limits, desk.examples())
    fields = {one["name"]: one for one in form["fields"]}
    assert list(fields) == [one.name for one in TASK.fields]
    assert [fields[name]["label"] for name in ("age_years", "mmse", "apoe4_copies")] == ["Age", "MMSE", "APOE4 copies"]
    assert (fields["mmse"]["minimum"], fields["mmse"]["maximum"], fields["mmse"]["whole"]) == (0, 30, True)
    assert [one["name"] for one in form["findings"]] == [one.name for one in TASK.findings]
    for one in form["fields"]:
        for choice in one["choices"]:
            desk.body_model.model_validate({"patient": {one["name"]: choice["value"]}})


def phantom_scan(folder: Path) -> Path:
    """A T1-weighted scan of nobody."""
    random = np.random.default_rng(7)
    volumes = draw_volumes(load_config(PhantomParameters, PHANTOM), 1.0, 75.0, "female", random)
    _, t1, affine = render_phantom(volumes, random)
    nib: Any = nibabel  # typed in part
    nib.save(nib.Nifti1Image(t1, affine), folder / "scan.nii.gz")
    return folder / "scan.nii.gz"
