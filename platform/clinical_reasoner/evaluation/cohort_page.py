"""The cohort of a run: its tables summed up, and a page of its own for runs that need no model."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from clinical_reasoner.cohort.stage import PATIENTS_STAGE
from clinical_reasoner.evaluation.cohort_plots import cohort_context
from clinical_reasoner.evaluation.cohort_summary import CohortSummary, summarise_cohort
from clinical_reasoner.evaluation.report import (
    RESEARCH_NOTICE,
    STAND_IN_NOTICE,
    SYNTHETIC_NOTICE,
    page_environment,
    short_note,
)
from clinical_reasoner.evidence.stage import FINDINGS_STAGE
from clinical_reasoner.imaging.stage import MEASURES_STAGE
from clinical_reasoner.records import FINDINGS, MEASURES, PATIENTS, REJECTED
from clinical_reasoner.runs import REJECTED as REJECTED_FOLDER
from clinical_reasoner.runs import RunError, RunFolder
from clinical_reasoner.task import DiagnosisTask

COHORT_PAGE = "report/cohort.html"
COHORT_STAGES = (PATIENTS_STAGE, MEASURES_STAGE, FINDINGS_STAGE)
"""Stages whose rejected rows belong to the cohort; later ones reject answers."""
PICTURE_SIDE = 512
"""Pixels of a picture on the page, at most."""
MOST_PIXELS = 4096**2
"""Of a picture that is opened at all."""


def make_cohort_page(run: RunFolder, task: DiagnosisTask, synthetic: bool) -> str:
    """Write `report/cohort.html` from the tables of a run, and say where it lies.

    `synthetic`: the patients are made up, which the page says; small counts are shown only where the name of the cohort
    says so too.

    Raises RunError when the tables of the cohort are not there.
    """
    summary = run_summary(run, task)
    page = render_cohort(summary, [SYNTHETIC_NOTICE] * (synthetic or summary.synthetic))
    run.write_bytes(COHORT_PAGE, page.encode())
    return run.child(COHORT_PAGE)


def run_summary(run: RunFolder, task: DiagnosisTask) -> CohortSummary:
    """The cohort of a run. Raises RunError when its tables are not there."""
    rejected = run.read_table(REJECTED_FOLDER, REJECTED) if run.count_rows(REJECTED_FOLDER) else REJECTED.empty_table()
    measured = run.manifest(MEASURES_STAGE) is not None
    return summarise_cohort(
        run.read_table(PATIENTS_STAGE, PATIENTS),
        run.read_table(FINDINGS_STAGE, FINDINGS),
        {stage: _of_stage(rejected, stage) for stage in COHORT_STAGES},
        task,
        measures=run.read_table(MEASURES_STAGE, MEASURES) if measured else None,
        picture=lambda path: picture_uri(run, path),
    )


def render_cohort(summary: CohortSummary, notes: Sequence[str]) -> str:
    """The page as HTML text: no script, no request to any other file. `notes` are what a reader must know before any
    number, such as SYNTHETIC_NOTICE and STAND_IN_NOTICE, whose short forms stand beside the numbers."""
    template = page_environment().get_template("cohort_page.html.j2")
    return template.render(
        title=f"Cohort {', '.join(summary.names)}",
        research_notice=RESEARCH_NOTICE,
        caveats=list(notes),
        short_note=short_note(SYNTHETIC_NOTICE in notes, STAND_IN_NOTICE in notes),
        **cohort_context(summary),
    )


def picture_uri(run: RunFolder, path: str) -> str | None:
    """A picture of the run folder (PNG or JPEG, by name or full path) as a data URI with nothing but its pixels; None
    where there is none that can be read."""
    try:
        data = run.read_bytes(path.removeprefix(f"{run.path}/"))
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return None
            shown = picture.convert("L" if picture.mode in ("1", "L", "I;16") else "RGB")
    except (RunError, OSError, SyntaxError, ValueError):  # Pillow raises the last two on damaged files
        return None
    shown.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    shown.info.clear()
    file = io.BytesIO()
    shown.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _of_stage(rejected: pa.Table, stage: str) -> pa.Table:
    return rejected.filter(pc.equal(rejected.column("stage"), stage))
