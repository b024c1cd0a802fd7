"""The work of a generation in the run folder: order, what is asked again, and how far it is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinical_reasoner.llm import work as work_module
from clinical_reasoner.llm.generation import FAILURE, PLACE, TOO_LONG
from clinical_reasoner.llm.work import Watch, Work
from clinical_reasoner.runs import RunError, RunFolder
from tests.unit.llm.written import ASKED, add_block, prompts, work_with


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path))


def test_prompts_are_numbered_and_patients_counted(run: RunFolder) -> None:
    work = Work(run, "work/w")
    assert work.write_prompts(prompts(5, rows_per_patient=2), ASKED) == (5, 3)
    first = run.read_table(work.prompts)
    assert first.column(PLACE).to_pylist() == [0, 1, 2, 3, 4]
    assert first.select(ASKED.names).to_pylist() == prompts(5, rows_per_patient=2)
    assert work.write_prompts(prompts(5, rows_per_patient=2), ASKED) == (5, 3)
    assert run.read_table(work.prompts).equals(first)


@pytest.mark.parametrize(
    "blocks",
    [
        [[0, 1, 2, 3, 4, 5]],
        [[0, 1], [2, 3], [4, 5]],
        [[4, 5], [2, 3], [0, 1]],
        [[1, 0], [5, 4, 3], [2]],
        [[0, 5], [1, 4], [2, 3]],
        [[1, 3, 5], [0, 2, 4]],
        [[0, 1, 2], [], [3, 4, 5]],
    ],
    ids=["one file", "in order", "the last first", "mixed", "one within the other", "in turn", "an empty file"],
)
def test_rows_come_in_the_order_of_the_prompts(run: RunFolder, blocks: list[list[int]]) -> None:
    rows = list(work_with(run, "work/w", *blocks).in_order(6, None))
    assert [row[PLACE] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert [row["text"] for row in rows] == [f"work/w {place}" for place in range(6)]


def test_rows_that_failed_are_replaced_and_those_that_were_refused_kept(run: RunFolder) -> None:
    first = work_with(run, "work/w", [2, 3], [0, 1, 4, 5], failed={1: "OSError", 2: TOO_LONG, 4: "OSError"})
    again = work_with(run, "work/w/again", [4], [1], failed={4: "APITimeoutError"})
    rows = list(first.in_order(6, again))
    assert [(row["text"], row[FAILURE]) for row in rows] == [
        ("work/w 0", None),
        ("work/w/again 1", None),
        ("", TOO_LONG),
        ("work/w 3", None),
        ("", "APITimeoutError"),
        ("work/w 5", None),
    ]


def test_a_failure_that_was_not_asked_again_keeps_its_row(run: RunFolder) -> None:
    rows = list(work_with(run, "work/w", [0, 1], failed={1: "OSError"}).in_order(2, None))
    assert [row[FAILURE] for row in rows] == [None, "OSError"]


@pytest.mark.parametrize(
    ("blocks", "again", "told"),
    [
        ([[0, 1], [1]], None, "1 rows double and 1 missing"),
        ([[0, 1, 2], [2]], None, "1 rows double and 0 missing"),
        ([[0, 1, 2], [0, 1]], None, "2 rows double and 0 missing"),
        ([[1, 2]], None, "0 rows double and 1 missing"),
        ([[0]], None, "0 rows double and 2 missing"),
        ([], None, "0 rows double and 3 missing"),
        ([[0, 1, 2, 3]], None, "1 rows double and 0 missing"),
        ([[0, 1, 2]], [], "0 rows double and 1 missing"),
        ([[0, 1, 2]], [1, 2], "1 rows double and 0 missing"),
    ],
    ids=[
        "both",
        "double",
        "two double",
        "the first",
        "all but one",
        "all",
        "of no prompt",
        "not again",
        "again double",
    ],
)
def test_double_and_missing_rows_are_errors(
    run: RunFolder, blocks: list[list[int]], again: list[int] | None, told: str
) -> None:
    """Of three prompts; where there is a second attempt the middle one has failed."""
    first = work_with(run, "work/w", *blocks, failed={1: "OSError"} if again is not None else {})
    second = work_with(run, "work/w/again", again) if again is not None else None
    with pytest.raises(RunError, match=rf"^work/w in the run folder: {told}; remove that folder and start again$"):
        list(first.in_order(3, second))


TEXT, BLOCK, BLOCKS = 100_000, 4, 40


@pytest.mark.parametrize("swapped", [False, True], ids=["in order", "each overtaken by a row of the next"])
def test_memory_holds_blocks_that_overtook_and_no_more(run: RunFolder, tmp_path: Path, swapped: bool) -> None:
    places = list(range(BLOCK * BLOCKS))
    if swapped:
        for last in range(BLOCK - 1, len(places) - 1, BLOCK):
            places[last], places[last + 1] = places[last + 1], places[last]
    folder = tmp_path / "work/w/generated"
    folder.mkdir(parents=True)
    for start in range(0, len(places), BLOCK):
        rows = {PLACE: places[start : start + BLOCK], "text": ["x" * TEXT] * BLOCK, FAILURE: pa.nulls(BLOCK)}
        pq.write_table(pa.table(rows), folder / f"{start}.parquet")
    tracemalloc.start()
    try:
        read = [row[PLACE] for row in Work(run, "work/w").in_order(len(places), None)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == sorted(places)
    assert peak < 4 * BLOCK * TEXT, f"{peak / (BLOCK * TEXT):.0f} of {BLOCKS} blocks"


def test_failures_by_kind(run: RunFolder) -> None:
    work = work_with(run, "work/w", [0, 1], [2, 3], [4], failed={1: "OSError", 2: TOO_LONG, 3: "OSError"})
    assert work.failures() == {"OSError": 2, TOO_LONG: 1}
    assert work_with(run, "work/v", [0, 1]).failures() == {}
    assert Work(run, "work/u").failures() == {}, "nothing generated yet"


def test_what_is_asked_again_keeps_its_place(run: RunFolder) -> None:
    failed = {1: "OSError", 2: TOO_LONG, 4: "APITimeoutError", 5: "BadRequestError 400"}
    work = work_with(run, "work/w", [3, 4, 5], [0, 1, 2], failed=failed)
    work.write_prompts(prompts(6, rows_per_patient=3), ASKED)
    rows = list(work.to_ask_again(ASKED))
    assert [(row["row_id"], row["patient_id"], row[PLACE]) for row in rows] == [("1", "p0", 1), ("4", "p1", 4)]
    again = Work(run, "work/w/again")
    assert again.write_prompts(rows, ASKED) == (2, 2)
    assert run.read_table(again.prompts).column(PLACE).to_pylist() == [1, 4]


class Folder(RunFolder):
    """One that remembers which files were opened."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.opened: list[str] = []

    def parquet(self, part: str) -> Any:
        self.opened.append(Path(part).name)
        return super().parquet(part)


def test_watch_reads_each_block_once(tmp_path: Path) -> None:
    run = Folder(str(tmp_path))
    work = Work(run, "work/w")
    watch = Watch(work, total=8, patients=4)
    assert watch() == (0, "(patients 0 of 4, 0 rejected)")
    first = add_block(work, 0, [4, 5, 6], {5: "OSError"})
    for _ in range(2):
        done, note = watch()
        assert done == 3
        assert note.startswith("(patients 1 of 4, ") and note.endswith(" 1 rejected)")
    assert run.opened == [first.name]
    second = add_block(work, 1, [0, 1, 2, 3, 7], {})
    done, note = watch()
    assert done == 8
    assert note.startswith("(patients 4 of 4, ") and note.endswith(" 4 rejected)")
    assert run.opened == [first.name, second.name]


@pytest.mark.parametrize("kept", [0, 3, -20], ids=["empty", "begun", "without its footer"])
def test_watch_waits_for_a_block_that_is_being_written(run: RunFolder, kept: int) -> None:
    work = Work(run, "work/w")
    watch = Watch(work, total=4, patients=4)
    file = add_block(work, 0, [0, 1], {})
    add_block(work, 1, [2], {})
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    assert watch()[0] == 1
    file.write_bytes(whole)
    assert watch()[0] == 3


@pytest.mark.parametrize(
    ("looks", "note"),
    [
        ([(0, 0), (10, 50)], "50 tokens/s"),
        ([(0, 0), (10, 50), (20, 150)], "75 tokens/s"),
        ([(0, 0), (10, 50), (30, 50)], "50 tokens/s"),
        ([(0, 0), (100, 50), (110, 350)], "300 tokens/s"),
        ([(0, 0), (0.001, 400)], "4,000,000 tokens/s"),
    ],
    ids=["first block", "since the beginning", "nothing new", "the last minute alone", "thousands"],
)
def test_watch_tells_the_rate_of_the_last_minute(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, looks: Sequence[tuple[float, int]], note: str
) -> None:
    """Looks at a time in seconds, with so many rows of 10 tokens."""
    clock = iter([at for at, _ in looks])
    monkeypatch.setattr(work_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    work = Work(run, "work/w")
    watch = Watch(work, total=1000, patients=10)
    written, said = 0, ""
    for number, (_, rows) in enumerate(looks):
        if rows > written:
            add_block(work, number, range(written, rows), {})
        written = rows
        said = watch()[1]
    assert f", {note}, " in said
