"""Students trained by real Ray Train workers: the same curve on any workers, kills, FSDP2, adapters, clear errors."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clinical_reasoner.cluster import connect
from clinical_reasoner.config.loading import ConfigError
from clinical_reasoner.distillation import stage, worker
from clinical_reasoner.distillation.export import export_student, merged_model
from clinical_reasoner.distillation.stage import check_students, make_students
from clinical_reasoner.errors import UserError, reported
from clinical_reasoner.records import REJECTED
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import load_task
from tests.integration.pipeline_run import ROOT
from tests.integration.training_hooks import Hook, fill_disk, hooked, poison, record_batches, slow, written
from tests.integration.training_run import (
    STAGE,
    STEPS,
    TOO_LONG,
    VISITS,
    checkpoints,
    logged,
    losses,
    output_of,
    pipeline_config,
    prepare_run,
    start_job,
    wait_for,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
BASE = ROOT / "platform/clinical_reasoner/reference/models/student"
LORA = "student.lora={rank: 4}"
TWO_WORKERS = "student.training.workers=2"
SHARDED = (TWO_WORKERS, "student.training.sharding=fsdp2")
Train = Callable[..., RunFolder]


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    """Trains in a run folder of that name, with these overrides, in one Ray session; a second call with the same name
    goes on in that folder."""
    import ray

    folder = tmp_path_factory.mktemp("training")

    def one(name: str, *overrides: str, hook: Hook | None = None) -> RunFolder:
        path = folder / name
        run = RunFolder(str(path)) if path.exists() else prepare_run(path)
        with pytest.MonkeyPatch.context() as patch:
            if hook is not None:
                patch.setattr(worker, "train_loop", hooked(hook))
            for _ in make_students(pipeline_config(path, *overrides), run):
                pass
        return run

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "platform"), str(ROOT)]))
        connect(6)
        yield one
        ray.shutdown()


@pytest.fixture(scope="module")
def alone(train: Train) -> RunFolder:
    """One worker, eight examples at a time, never stopped."""
    return train("alone", hook=record_batches)


def assert_same_curve(one: RunFolder, other: RunFolder, tolerance: float = 2e-5) -> None:
    """Each step within the tolerance, and no lean to one side."""
    found, expected = np.array(losses(one)), np.array(losses(other))
    assert len(found) == len(expected) == STEPS
    assert np.abs(found - expected).max() < tolerance
    assert abs((found - expected).mean()) < tolerance / 4
    assert expected[-1] < 0.3 * expected[0], "nothing is learnt: any two curves would be alike"


def assert_finished(run: RunFolder) -> None:
    manifest = run.manifest(STAGE)
    assert manifest is not None
    assert (manifest.rows_in, manifest.rows_out, manifest.rows_rejected) == (VISITS + TOO_LONG, VISITS, TOO_LONG)
    assert (manifest.details["steps"], manifest.details["exported at step"]) == (STEPS, STEPS)
    rejected = run.read_table("rejected", REJECTED).to_pylist()
    assert [row["reason"] for row in rejected] == [rejected[0]["reason"]] and "max_length=256" in rejected[0]["reason"]
    assert (Path(run.path) / STAGE / "model" / "model.safetensors").is_file()
    assert not checkpoints(run), "finished work is left behind"


def assert_moved(run: RunFolder) -> None:
    """The exported model loads, and every layer of it is another than the base's."""
    from transformers import AutoModelForCausalLM

    student = AutoModelForCausalLM.from_pretrained(run.child(STAGE, "model"), dtype="float32").state_dict()
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype="float32").state_dict()
    assert student.keys() == base.keys()
    still = [name for name in base if "proj" in name and (student[name] - base[name]).abs().max() < 1e-4]
    assert still == []


def learnt(run: RunFolder) -> list[list[str]]:
    """Examples of each step, sorted: batches of the workers in turn."""
    by_rank = [written(run.path, f"batches-{rank}") for rank in (0, 1)]
    batches = [batch for turn in zip(*[one for one in by_rank if one], strict=True) for batch in turn]
    examples = [str(ids) for batch in batches for ids, _ in batch]
    return [sorted(examples[start : start + 8]) for start in range(0, STEPS * 8, 8)]


def test_two_workers_learn_as_one(train: Train, alone: RunFolder) -> None:
    shared = train("shared", TWO_WORKERS, hook=record_batches)
    assert_same_curve(shared, alone)
    assert_finished(alone)
    assert_finished(shared)
    assert_moved(alone)
    steps = learnt(alone)
    assert learnt(shared) == steps
    of_epoch = VISITS // 8
    epochs = [steps[start : start + of_epoch] for start in range(0, STEPS, of_epoch)]
    assert all(len({text for step in epoch for text in step}) == VISITS for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2], "every epoch has the same order"


def test_accumulated_batches_learn_as_one(train: Train, alone: RunFolder) -> None:
    assert_same_curve(train("accumulated", "student.micro_batch_size=2"), alone)


def kill_worker_after_checkpoint(path: Path) -> threading.Thread:
    """In the background, the last one of Ray Train's workers."""
    psutil: Any = import_module("psutil")

    def act() -> None:
        wait_for(lambda: checkpoints(RunFolder(str(path))))
        pids = {row["pid"] for row in written(str(path), "starts")}
        running = [one for one in psutil.Process().children(recursive=True) if one.pid in pids]
        assert all("RayTrainWorker" in one.cmdline()[0] for one in running)
        running[-1].kill()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "sharding", [(TWO_WORKERS,), pytest.param(SHARDED, marks=pytest.mark.long)], ids=["ddp", "fsdp2"]
)
def test_killed_worker(
    train: Train, alone: RunFolder, tmp_path_factory: pytest.TempPathFactory, sharding: tuple[str, ...]
) -> None:
    name = f"killed-{len(sharding)}"
    killer = kill_worker_after_checkpoint(Path(alone.path).parent / name)
    run = train(name, *sharding, hook=slow)
    killer.join(timeout=10)
    assert len(written(run.path, "starts")) == 4, "two workers, started twice"
    first, second = logged(run)
    assert min(first) == 1 and 4 < min(second) <= STEPS, "it began anew"
    assert_same_curve(run, alone)
    assert_finished(run)
    assert_moved(run)
    shares = {own / whole for own, whole in written(run.path, "held")}
    assert max(shares) < 0.51 if sharding is SHARDED else shares == {1.0}


def test_sharded_student_is_asked_meanwhile(train: Train) -> None:
    run = train("asked", *SHARDED, "student.validation.evaluations=2", f"student.epochs={4 * 8 / (VISITS + TOO_LONG)}")
    manifest = run.manifest(STAGE)
    assert manifest is not None and manifest.details["exported at step"] in (2, 4)
    (values,) = logged(run, "eval/macro_f1")
    assert list(values) == [2, 4] and all(0 <= value <= 1 for value in values.values())


@pytest.mark.timeout(1800)
def test_killed_driver_and_merged_adapters(train: Train, alone: RunFolder, tmp_path: Path) -> None:
    unbroken = train("adapters", LORA)
    path = tmp_path / "run"
    run = prepare_run(path)
    first = start_job(path, LORA, "student.micro_batch_size=1")
    (saved, *_) = wait_for(lambda: checkpoints(run), lambda: first.poll() is None)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert run.manifest(STAGE) is None
    files = {file.name for file in saved.iterdir()}
    assert "adapter_model.safetensors" in files and not files & {"model.safetensors", "pytorch_model.bin"}
    adapters = tmp_path / "adapters"
    shutil.copytree(saved, adapters)
    assert start_job(path, LORA, "student.micro_batch_size=1").wait(900) == 0, output_of(path).read_text()[-3000:]
    killed, resumed = logged(run)
    assert min(killed) == 1 and min(resumed) > 4
    assert_same_curve(run, unbroken)
    assert_finished(run)
    assert_moved(run)
    assert not list(Path(run.child(STAGE, "model")).glob("adapter*"))
    assert_merged_answers_alike(adapters, path)


def assert_merged_answers_alike(adapters: Path, path: Path) -> None:
    """Fifty greedy answers of the base with adapters and of the merged model, both in float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASE, padding_side="left")
    texts = [f"The patient is {age} years old." for age in range(40, 90)]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    base: Any = AutoModelForCausalLM.from_pretrained(BASE, dtype="float32")
    plain = base.generate(**inputs, max_new_tokens=24, do_sample=False)
    with_adapters: Any = PeftModel.from_pretrained(base, str(adapters))
    adapted = with_adapters.generate(**inputs, max_new_tokens=24, do_sample=False)
    task = load_task("configs/tasks/alzheimers.yaml")
    merged = merged_model(str(adapters), pipeline_config(path, LORA).student, task, tokenizer, "float32")
    assert torch.equal(merged.generate(**inputs, max_new_tokens=24, do_sample=False), adapted)
    assert not torch.equal(plain, adapted), "the adapters do nothing"


@pytest.mark.parametrize("batching", ["packing", pytest.param("padded", marks=pytest.mark.long)])
def test_batching_keeps_every_diagnosis(train: Train, batching: str) -> None:
    short = f"student.epochs={4 * 8 / (VISITS + TOO_LONG)}"
    run = train(batching, f"student.training.batching={batching}", short, hook=record_batches)
    (values,) = logged(run)
    first = [pair for batch in written(run.path, "batches-0")[:1] for pair in batch]
    assert len(first) >= 8 and values[4] < values[1]
    assert len({str(ids) for batch in written(run.path, "batches-0") for ids, _ in batch}) == VISITS
    assert values[1] == pytest.approx(loss_of_base(first), abs=1e-4), "examples see each other"


def loss_of_base(examples: list[Any]) -> float:
    """Mean over the learnt tokens of these examples, each read alone."""
    import torch
    from transformers import AutoModelForCausalLM

    base: Any = AutoModelForCausalLM.from_pretrained(BASE, dtype="float32")
    total, count = 0.0, 0
    for ids, labels in examples:
        learnt = sum(label != -100 for label in labels[1:])
        with torch.no_grad():
            mean = base(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        total, count = total + float(mean) * learnt, count + learnt
    return total / count


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (poison, "student.learning_rate may help"),
        pytest.param(fill_disk, "make room and start again", marks=pytest.mark.long),
    ],
)
def test_hopeless_error_is_told_at_once_and_keeps_the_checkpoint(
    train: Train, alone: RunFolder, capfd: pytest.CaptureFixture[str], hook: Hook, said: str
) -> None:
    name = f"broken-{hook.__name__}"
    with pytest.raises(SystemExit), reported():
        train(name, hook=hook)
    run = RunFolder(str(Path(alone.path).parent / name))
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ") or "Traceback" in line]
    assert len(errors) == 1 and said in errors[0] and run.path in errors[0]
    assert len(written(run.path, "starts")) == 1, "it was tried again"
    assert run.manifest(STAGE) is None
    assert len(checkpoints(run)) == 1
    if hook is fill_disk:
        train(name)
        assert_same_curve(run, alone)
        assert_finished(run)


@pytest.mark.long
def test_training_that_had_ended_is_only_exported(train: Train, alone: RunFolder) -> None:
    def without_room(*given: Any) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
        try:
            export_student(*given)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "export_student", without_room)
        with pytest.raises(UserError, match="make room and start again"):
            train("unexported")
    run = train("unexported")
    assert_same_curve(run, alone)
    assert_finished(run)
    assert len(logged(run)) == 1, "it was trained again"


def test_unfit_base_is_refused_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any) -> None:
        pytest.fail("Ray was started")

    monkeypatch.setattr("clinical_reasoner.distillation.training.connect", started)
    run = prepare_run(tmp_path / "run")
    mute = tmp_path / "mute"
    shutil.copytree(BASE, mute, ignore=shutil.ignore_patterns("chat_template.jinja"))
    longer = ("student.max_length=9000", "student.engine.max_model_len=9000")
    for overrides, said in (((f"student.base={mute}",), "no chat template"), (longer, "max_length=9000 is more")):
        config = pipeline_config(tmp_path / "run", *overrides)
        with pytest.raises(UserError, match=said):
            check_students(config, run)
        with pytest.raises(UserError, match=said):
            list(make_students(config, run))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("student.arms=[unknown]",), "no arm 'unknown'"),
        (("student.lora={quantize_base: true}",), "needs CUDA"),
        (("student.inputs=image", "student.training.batching=packing"), "joins texts alone"),
    ],
)
def test_impossible_settings_are_refused_when_read(tmp_path: Path, overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pipeline_config(tmp_path, *overrides)
