"""SynthSeg's volumes at their visits: the lines of rows that belong to none, and which version made them."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.study_volumes import NO_VISIT, TWO_SCANS, join_volumes
from clinical_reasoner.cohort.visits import Visit
from tests.unit.cohort.fixtures.synthseg import PLAIN, line, table


def test_rows_of_no_visit_are_placed_by_their_line(tmp_path: Path) -> None:
    visits = [Visit(patient_id="a", visit_id="bl", cohort="c", source="f:2")]
    rows = ["", line(PLAIN, "", left_hippocampus="1"), line(PLAIN, "b"), line(PLAIN, "a"), line(PLAIN, "sub-a_run-2")]
    _, rejected = join_volumes(visits, table(tmp_path, PLAIN, *rows))
    assert [(row.source, row.reason) for row in rejected] == [
        ("volumes.csv:3", "subject is empty"),
        ("volumes.csv:4", NO_VISIT),
        ("volumes.csv:6", TWO_SCANS),
    ]


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        (None, "synthseg"),
        ("freesurfer-6.0", "synthseg"),
        ("synthseg-1.0", "synthseg-1.0"),
        ("synthseg-robust-2.0", "synthseg-robust-2.0"),
    ],
)
def test_version_that_the_files_of_a_visit_tell_stays(tmp_path: Path, known: str | None, kept: str) -> None:
    """Versions are other networks: pooled under one name, they would share a norm."""
    visits = [Visit(patient_id="a", visit_id="bl", cohort="c", source="f:2", segmenter=known)]
    (visit,), rejected = join_volumes(visits, table(tmp_path, PLAIN, line(PLAIN, "a")))
    assert (visit.segmenter, rejected) == (kept, [])
