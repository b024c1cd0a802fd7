"""What every reader does alike: a row whose values have moved to other columns is set aside, whatever its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.columns import TOO_MANY_CELLS
from clinical_reasoner.cohort.readers import read_visits
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.config.cohort import StudyCohort
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import CohortRunConfig
from clinical_reasoner.records import RejectedRow
from tests.unit.cohort.fixtures.studies import STUDIES

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", [kind for kind in STUDIES if kind != "synthseg"])
def test_row_with_more_cells_than_columns_is_set_aside_in_every_table(tmp_path: Path, kind: str) -> None:
    (tmp_path / "study").mkdir()
    study = STUDIES[kind](tmp_path / "study")
    overrides = [f"cohort.path={study.path}", "run.path=x", *study.overrides]
    cohort = load_config(CohortRunConfig, ROOT / f"configs/cohort/{kind}.yaml", overrides).cohort
    assert isinstance(cohort, StudyCohort)
    tables = sorted(file for ending in ("csv", "tsv") for file in tmp_path.rglob(f"*.{ending}"))
    assert tables
    for file in tables:
        whole = file.read_text(encoding="utf-8")
        lines = whole.splitlines()
        delimiter = "\t" if file.suffix == ".tsv" else ","
        # The second row: the last of its cells gains a decimal comma's worth.
        file.write_text("\n".join([*lines[:2], f"{lines[2]}{delimiter}5", *lines[3:]]) + "\n", encoding="utf-8")
        found = list(read_visits(cohort))
        place = f"{file.name}:3"
        assert [one.reason for one in found if isinstance(one, RejectedRow) and one.source == place] == [TOO_MANY_CELLS]
        assert not any(one.source == place for one in found if isinstance(one, Visit))
        file.write_text(whole, encoding="utf-8")
