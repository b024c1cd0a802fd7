"""Generation without an engine: what a killed run left is not asked again, and comes in the order of the prompts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from clinical_reasoner.cluster import quiet_console
from clinical_reasoner.config.teacher import EngineConfig, SamplingConfig
from clinical_reasoner.llm.batch import Batch, generate
from clinical_reasoner.llm.generation import TOO_LONG, Generation, Model, Row
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.runs import RunError, RunFolder
from tests.unit.llm.written import ANSWERED, ASKED, prompts, work_with

MODEL = Model("m", EngineConfig(), SamplingConfig(), logprobs=5)


def test_notes_of_ray_data_stay_off_the_console(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.data  # noqa: F401  # sets its logger up

    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":  # it keeps the stream of whichever test imported it first
            monkeypatch.setattr(handler, "stream", sys.stderr)
    logger = logging.getLogger("ray.data.dataset")
    with quiet_console():
        logger.info("Data sink Parquet finished.")
        logger.warning("out of memory")
    assert logger.isEnabledFor(logging.DEBUG)  # for the log file
    logger.info("afterwards")
    said = capsys.readouterr().err
    assert "finished" not in said
    assert "out of memory" in said
    assert "afterwards" in said


def never_asked(row: dict[str, Any]) -> list[Message]:
    raise AssertionError(f"asked again about {row}")


def never_finished(row: dict[str, Any], generation: Generation) -> dict[str, Any]:
    raise AssertionError(f"finished again {row} {generation}")


def resume(run: RunFolder, count: int) -> Iterator[Row]:
    """`generate` where as many rows as it wants, or more, are written."""
    batch = Batch(prompts(count), ASKED, "work/w", rows_per_block=2)
    return generate(run, batch, MODEL, never_asked, never_finished, ANSWERED, logical_cpus=1)


def texts(rows: Iterator[Row]) -> list[str]:
    return [row["text"] for row in rows]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path))


def test_finished_work_is_returned_in_the_order_of_the_prompts(run: RunFolder) -> None:
    work_with(run, "work/w", [1, 2], [0])
    assert list(resume(run, 3)) == [
        {"row_id": "0", "text": "work/w 0"},
        {"row_id": "1", "text": "work/w 1"},
        {"row_id": "2", "text": "work/w 2"},
    ]


def test_no_prompt_no_row(run: RunFolder) -> None:
    assert list(resume(run, 0)) == []


def test_row_on_which_the_engine_failed_is_asked_once_more(run: RunFolder) -> None:
    work_with(run, "work/w", [0, 1], [2, 3], failed={1: "OSError", 2: "OSError"})
    work_with(run, "work/w/again", [1, 2], failed={2: "OSError"})
    assert texts(resume(run, 4)) == ["work/w 0", "work/w/again 1", "", "work/w 3"]
    again = run.read_table("work/w/again/prompts").to_pylist()
    assert [row["row_id"] for row in again] == ["1", "2"], "those alone"


def test_prompt_that_was_refused_is_not_asked_again(run: RunFolder) -> None:
    work_with(run, "work/w", [0, 1, 2], failed={1: TOO_LONG, 2: "BadRequestError 400"})
    assert texts(resume(run, 3)) == ["work/w 0", "", ""]
    assert run.read_table("work/w/again/prompts").num_rows == 0


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ({0: "OSError", 1: "OSError"}, {0: "OSError", 1: "OSError"}, "OSError"),
        ({0: TOO_LONG, 1: TOO_LONG}, {}, TOO_LONG),
        ({0: TOO_LONG, 1: "OSError"}, {1: TOO_LONG}, TOO_LONG),
    ],
    ids=["twice", "refused", "refused after all"],
)
def test_nothing_is_kept_where_no_prompt_has_an_answer(
    run: RunFolder, first: Mapping[int, str], second: Mapping[int, str], kind: str
) -> None:
    work_with(run, "work/w", [0, 1], failed=first)
    if second:
        work_with(run, "work/w/again", list(second), failed=second)
    with pytest.raises(RunError, match=rf"m: no answer to any of 2 prompts \({kind}\)"):
        resume(run, 2)
    assert not run.exists("work/w")


def test_one_answer_is_enough(run: RunFolder) -> None:
    work_with(run, "work/w", [0, 1], failed={0: "OSError", 1: "OSError"})
    work_with(run, "work/w/again", [0, 1], failed={0: "OSError"})
    assert texts(resume(run, 2)) == ["", "work/w/again 1"]


def test_a_missing_row_is_said_while_the_rows_are_read(run: RunFolder) -> None:
    work_with(run, "work/w", [0, 1], [1])
    rows = resume(run, 3)
    with pytest.raises(RunError, match="work/w in the run folder: 1 rows double and 1 missing; remove that folder"):
        list(rows)
