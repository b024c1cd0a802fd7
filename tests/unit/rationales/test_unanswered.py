"""What an earlier run has no answer to, without an engine: teachers that do not answer, and work that was left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.llm.generation import FAILURE, PLACE, TOO_LONG
from clinical_reasoner.rationales.stage import make_rationales
from clinical_reasoner.records import FINDINGS, RATIONALES, FindingsRow, RationaleRow, to_table
from clinical_reasoner.runs import Manifest, RunError, RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage

ROOT = Path(__file__).parents[3]
NOBODY = "http://127.0.0.1:9/v1"
SETTINGS = (
    "teacher.model=one",
    f"teacher.base_url={NOBODY}",
    f"more_teachers={{two: {{model: two, base_url: '{NOBODY}'}}}}",
    "rationales.asks={rationalize: [], diagnose: [], direct: [test]}",
    "student.arms=[label_only]",
)
LOST = "APIConnectionError"
FAILED = f"engine: {LOST}"
WRITTEN = pa.schema([*RATIONALES, (FAILURE, pa.string()), (PLACE, pa.int64())])


def rationales(run: RunFolder, *overrides: str) -> Manifest:
    return make_rationales(load_config(PipelineConfig, ROOT / "configs/demo.yaml", [*SETTINGS, *overrides]), run)


def answer(patient: str, model: str, failure: str | None, place: int) -> dict[str, Any]:
    """As a worker writes it."""
    row = RationaleRow(
        row_id=f"{patient}|v|direct|0|{model}",
        patient_id=patient,
        visit_id="v",
        split="test",
        label="AD",
        ask="direct",
        sample=0,
        model=model,
        prompt_version="v1",
        shots=0,
        seed=0,
        text="" if failure else "Diagnosis: (A)",
        predicted=None if failure else "AD",
        claims_supported=0,
        claims_contradicted=0,
        claims_not_in_evidence=0,
        accepted=failure is None,
        reject_reason=f"engine: {failure}" if failure else None,
        prompt_tokens=9,
        output_tokens=5,
    )
    return {**row.model_dump(), FAILURE: failure, PLACE: place}


def leave(run: RunFolder, kind: str, generated: str, *rows: dict[str, Any]) -> None:
    """A block in the only work folder of this kind, as a killed run leaves it."""
    (work,) = Path(run.child("work")).glob(f"{kind}-*")
    folder = work / generated
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=WRITTEN), folder / "left.parquet")


def table(run: RunFolder) -> dict[str, str | None]:
    rows = run.read_table("rationales", RATIONALES).to_pylist()
    found = {row["row_id"].replace("|v|direct|0|", " "): row["reject_reason"] for row in rows}
    assert len(found) == len(rows)
    return found


BEFORE = {"a one": FAILED, "b one": None, "a two": None, "b two": FAILED}


@pytest.fixture(scope="module")
def half_answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which each teacher has answered about one of two test patients, and then none about anyone."""
    path = tmp_path_factory.mktemp("half")
    run = RunFolder(str(path))
    visits = [FindingsRow(patient_id=name, visit_id="v", split="test", label="AD", description="...") for name in "ab"]

    def make() -> Rows:
        run.write_table("findings", to_table(visits, FINDINGS))
        return Rows(2, 2)

    run_stage(run, Stage("findings", {}), make)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        for number, (model, failed) in enumerate((("one", "a"), ("two", "b"))):
            with pytest.raises(RunError, match=f"no answer from {NOBODY}"):
                rationales(run)  # gets as far as this teacher
            rows = [answer(name, model, LOST if name == failed else None, place) for place, name in enumerate("ab")]
            leave(run, "rationales", f"{number}/generated", *rows)
            leave(run, "rationales", f"{number}/again/generated", *(row for row in rows if row[FAILURE]))
        assert rationales(run).details["unanswered"] == 2
        assert rationales(run).details["unanswered"] == 2
    return path


@pytest.fixture
def run(half_answered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.chdir(ROOT)
    shutil.copytree(half_answered, tmp_path / "run")
    return RunFolder(str(tmp_path / "run"))


def test_where_still_nobody_answers_the_table_stays(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    first, content = run.manifest("rationales"), run.read_table("rationales")
    assert table(run) == BEFORE
    assert rationales(run) == first == run.manifest("rationales")
    assert run.read_table("rationales").equals(content)
    said = capsys.readouterr().out
    assert "2 asks have no answer yet; asking again" in said and said.count("still no answer") == 2


def test_one_teacher_goes_on_with_what_a_killed_run_left_while_the_other_does_not_answer(run: RunFolder) -> None:
    first = run.manifest("rationales")
    student = Stage("students/student/label_only/0", {}, ["rationales"])
    run_stage(run, student, lambda: Rows(0, 0))
    leave(run, "rationales/unanswered", "1/generated", answer("b", "two", None, 0))
    second = rationales(run)
    assert table(run) == BEFORE | {"b two": None}
    assert list(table(run)) == list(BEFORE), "in their order"
    assert (second.details["unanswered"], second.rows_out) == (1, 4)
    assert first and second.settings == first.settings | {"retries": 1} and second.identity != first.identity
    with pytest.raises(RunError, match=r"from other inputs \(changed upstream: 'rationales'\)"):
        run_stage(run, student, lambda: Rows(0, 0))

    assert rationales(run) == second, "the other one still does not answer"
    leave(run, "rationales/unanswered", "0/generated", answer("a", "one", None, 0))
    third = rationales(run)
    assert set(table(run).values()) == {None}
    assert third.details["unanswered"] == 0 and third.settings["retries"] == 2
    assert rationales(run) == third
    assert [file for file in Path(run.child("work")).rglob("*") if file.is_file()] == []


def test_a_run_killed_between_table_and_manifest_is_told_from_the_one_before(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where nobody answers then: the table has other rows."""
    leave(run, "rationales/unanswered", "1/generated", answer("b", "two", None, 0))
    before = run.read_bytes("rationales/manifest.json")
    finished = rationales(run)
    run.write_bytes("rationales/manifest.json", before)
    capsys.readouterr()
    again = rationales(run)
    assert "1 asks have no answer yet" in capsys.readouterr().out
    assert again.identity == finished.identity and again.details == finished.details
    assert table(run) == BEFORE | {"b two": None}
    assert rationales(run) == again


def test_work_of_a_killed_run_is_found_after_retries_too(run: RunFolder) -> None:
    """Made again with other settings, the table loses its manifest before its work is done."""
    leave(run, "rationales/unanswered", "1/generated", answer("b", "two", None, 0))
    assert rationales(run).settings["retries"] == 1
    other = ("teacher.sampling.seed=9", "run.overwrite=true")
    for _ in range(2):
        with pytest.raises(RunError, match="no answer from"):
            rationales(run, *other)
        assert run.manifest("rationales") is None
    assert len(list(Path(run.child("work")).glob("rationales-*"))) == 1


def test_a_manifest_of_another_version_can_be_overwritten(run: RunFolder) -> None:
    manifest = json.loads(run.read_bytes("rationales/manifest.json"))
    run.write_bytes("rationales/manifest.json", json.dumps(manifest | {"unknown": 1}).encode())
    with pytest.raises(RunError, match=r"run\.overwrite=true to make stage 'rationales' again"):
        rationales(run)
    with pytest.raises(RunError, match="no answer from"):
        rationales(run, "run.overwrite=true")
    assert run.manifest("rationales") is None


def test_asks_that_are_refused_in_the_end_are_put_no_more(run: RunFolder) -> None:
    leave(run, "rationales/unanswered", "1/generated", answer("b", "two", TOO_LONG, 0))
    settled = rationales(run)
    assert table(run) == BEFORE | {"b two": f"engine: {TOO_LONG}"}
    assert settled.details["unanswered"] == 1, "that of the other teacher"


def test_damaged_work_of_a_retry_is_no_missing_answer(run: RunFolder) -> None:
    leave(run, "rationales/unanswered", "1/generated", *[answer("b", "two", None, 0)] * 2)
    with pytest.raises(RunError, match="1 rows double"):
        rationales(run)


def test_another_first_teacher_is_another_table(run: RunFolder) -> None:
    """Students learn from the first one, and the settings of each are as before."""
    swapped = [setting.replace("one", "uno").replace("two", "one").replace("uno", "two") for setting in SETTINGS]
    config = load_config(PipelineConfig, ROOT / "configs/demo.yaml", swapped)
    assert list(config.teachers()) == ["two", "one"]
    with pytest.raises(RunError, match=r'order: \["one","two"\] -> \["two","one"\]'):
        make_rationales(config, run)
