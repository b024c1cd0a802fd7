"""What the endpoint takes from a run: a student that is finished, and an example that is nobody's patient."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.prompting import EXEMPLAR_KEYS, load_exemplars
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import load_task
from serve.run_parts import find_student, make_panel, shown_exemplar

STAGE = "students/student/rationale_then_label/0"
CANARY = "Zebulon Quackenbush"


def config_of(*overrides: str) -> PipelineConfig:
    return load_config(PipelineConfig, "configs/demo.yaml", overrides)


def finish(run: RunFolder, stage: str, seed: int = 0, inputs: dict[str, str] | None = None) -> str:
    """Identity of a finished stage without rows."""
    done = run.finish(
        stage, settings={"seed": seed}, inputs=inputs or {}, rows_in=0, rows_out=0, rows_rejected=0, seconds=0
    )
    return done.identity


def test_a_finished_student_is_found(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    finish(run, STAGE, inputs={"rationales": finish(run, "rationales")})
    assert find_student(config_of(f"run.path={tmp_path}")) == f"{tmp_path}/{STAGE}/model"


def test_an_unfinished_student_is_refused(tmp_path: Path) -> None:
    (tmp_path / STAGE / "model").mkdir(parents=True)
    (tmp_path / STAGE / "model/config.json").write_text("{}")
    with pytest.raises(UserError, match="no finished student there"):
        find_student(config_of(f"run.path={tmp_path}"))


def test_a_student_of_other_rationales_is_refused(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    finish(run, STAGE, inputs={"rationales": finish(run, "rationales")})
    finish(run, "rationales", seed=1)
    with pytest.raises(UserError, match="trained on another 'rationales'"):
        find_student(config_of(f"run.path={tmp_path}"))


def test_the_documentation_never_shows_an_exemplar_of_the_user(tmp_path: Path) -> None:
    entry = dict(zip(EXEMPLAR_KEYS, (f"{CANARY} is 74 years old.", f"{CANARY} is well.", "NC"), strict=True))
    (tmp_path / "own.json").write_text(json.dumps({f"case_{number}": entry for number in range(3)}))
    panel = make_panel(config_of(f"task.exemplars={tmp_path}/own.json"))
    assert CANARY in panel.teacher.exemplars.pool[0].description
    task = load_task("configs/tasks/alzheimers.yaml")
    assert shown_exemplar(panel) == load_exemplars(task.exemplars, task)[0]


@pytest.mark.parametrize("family", ["encoder_decoder", "encoder"])
def test_a_student_that_vllm_does_not_run_is_refused(tmp_path: Path, family: str) -> None:
    options = (f"run.path={tmp_path}", f"student.family={family}", "student.arms=[label_only]")
    with pytest.raises(UserError, match=rf"student\.family='{family}': the endpoint serves decoders alone"):
        find_student(config_of(*options, "serving.student_arm=label_only"))
