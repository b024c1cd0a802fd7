"""A run folder whose findings and rationales are finished, students trained in it, and what they have learnt."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evidence.description import with_question
from clinical_reasoner.records import FINDINGS, RATIONALES, FindingsRow, RationaleRow, Split, to_table
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import load_task
from tests.integration.pipeline_run import ROOT, environment

TASK = "configs/tasks/alzheimers.yaml"
VISITS, TOO_LONG, ASKED = 32, 1, 4
"""Visits that can be learnt from, those whose text is too long, and those of the validation split."""
STEPS = 12
STAGE = "students/student/rationale_then_label/0"
SETTINGS = (
    "cohort.phantoms=null",
    "run.logical_cpus=6",
    "student.arms=[rationale_then_label]",
    f"student.epochs={STEPS * 8 / (VISITS + TOO_LONG)}",
    "student.learning_rate=0.001",
    "student.batch_size=8",
    "student.micro_batch_size=8",
    "student.max_length=256",
    "student.validation.evaluations=0",
    "student.training.workers=1",
    "student.training.log_every=1",
)
LIMIT_S = 400


def pipeline_config(path: Path, *overrides: str) -> PipelineConfig:
    return load_config(PipelineConfig, ROOT / "configs/demo.yaml", [f"run.path={path}", *SETTINGS, *overrides])


def prepare_run(path: Path, pictures: tuple[str | None, ...] = ()) -> RunFolder:
    """The stages before the students. `pictures`: those of the first visits, for students that see them."""
    run, config, task = RunFolder(str(path)), pipeline_config(path), load_task(TASK)
    findings: list[FindingsRow] = []
    rationales: list[RationaleRow] = []
    for number in range(VISITS + TOO_LONG + ASKED):
        split: Split = "train" if number < VISITS + TOO_LONG else "validation"
        label = task.label_names[number % 3]
        reasons = f"The patient is {60 + number} years old. " * (60 if number == VISITS else 1 + number % 4)
        visit: dict[str, Any] = {"patient_id": f"p{number}", "visit_id": "bl", "split": split, "label": label}
        findings.append(
            FindingsRow(
                **visit,
                description=with_question(f"The patient is {60 + number} years old.", task),
                picture_path=pictures[number] if number < len(pictures) else None,
            )
        )
        if split == "train":
            rationales.append(_rationale(visit, config.teacher.model, reasons))
    run.write_table("findings", to_table(findings, FINDINGS))
    run.write_table("rationales", to_table(rationales, RATIONALES))
    for stage, rows in (("findings", len(findings)), ("rationales", len(rationales))):
        run.finish(stage, settings={}, inputs={}, rows_in=rows, rows_out=rows, rows_rejected=0, seconds=0.0)
    return run


def _rationale(visit: dict[str, Any], model: str, text: str) -> RationaleRow:
    return RationaleRow(
        **visit,
        row_id=visit["patient_id"],
        ask="rationalize",
        sample=0,
        model=model,
        prompt_version="v1",
        shots=0,
        seed=0,
        text=text,
        rationale=text.strip(),
        claims_supported=1,
        claims_contradicted=0,
        claims_not_in_evidence=0,
        accepted=True,
        selected="reasoned",
        prompt_tokens=1,
        output_tokens=1,
    )


def logged(run: RunFolder, tag: str = "train/loss") -> list[dict[int, float]]:
    """Step -> value in each of TensorBoard's files, one for each start of the training."""
    events: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    found: list[tuple[float, dict[int, float]]] = []
    for file in Path(run.child(STAGE, "logs")).rglob("events.out.tfevents.*"):
        log = events.EventAccumulator(str(file))
        log.Reload()
        scalars = log.Scalars(tag) if tag in log.Tags()["scalars"] else []
        if scalars:
            found.append((scalars[0].wall_time, {one.step: one.value for one in scalars}))
    return [values for _, values in sorted(found, key=lambda pair: pair[0])]


def losses(run: RunFolder) -> list[float]:
    """Of each step, as the last start that took it had it."""
    merged: dict[int, float] = {}
    for values in logged(run):
        merged.update(values)
    return [merged[step] for step in range(1, max(merged) + 1)]


def checkpoints(run: RunFolder) -> list[Path]:
    """Those of the unfinished training that a restart knows of."""
    kept: list[Path] = []
    for snapshot in Path(run.path).glob(f"work/{STAGE}-*/training/checkpoint_manager_snapshot.json"):
        text = snapshot.read_text()
        kept += [folder for folder in snapshot.parent.glob("checkpoint_*") if folder.name in text]
    return [folder / "checkpoint" for folder in sorted(kept)]


def start_job(path: Path, *overrides: str) -> subprocess.Popen[bytes]:
    """jobs/distill_students.py as a process of its own, its output beside the run folder."""
    command = [sys.executable, "jobs/distill_students.py", "--config", "configs/demo.yaml", f"run.path={path}"]
    with output_of(path).open("ab") as stream:
        return subprocess.Popen(
            [*command, *SETTINGS, *overrides], cwd=ROOT, env=environment(), stdout=stream, stderr=stream
        )


def output_of(path: Path) -> Path:
    return path.parent / f"{path.name}.log"


def wait_for(what: Callable[[], Any], alive: Callable[[], bool] = lambda: True) -> Any:
    """What `what` returns once that is something."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := what()):
        assert alive(), "it ended before"
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)
    return found
