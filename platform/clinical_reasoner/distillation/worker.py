"""The training loop of one Ray Train worker: TRL's SFTTrainer on the examples, checkpoints to Ray Train."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from datasets import Dataset
from ray.train import Checkpoint
from ray.util.queue import Queue
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig

from clinical_reasoner.config.arms import ArmConfig
from clinical_reasoner.config.student import StudentConfig
from clinical_reasoner.distillation.asked import MACRO_F1, AskedTrainer
from clinical_reasoner.distillation.asking import ValidationAsker
from clinical_reasoner.distillation.bases import adapter_config, load_model, tokenizer_of
from clinical_reasoner.distillation.collating import AnswerCollator, TokenTexts, option_tokens
from clinical_reasoner.distillation.failures import no_room_named
from clinical_reasoner.distillation.families import student_processor
from clinical_reasoner.distillation.plain_training import PlainAnswers, plain_trainer
from clinical_reasoner.distillation.sharding import FSDP2
from clinical_reasoner.distillation.trainer import Distiller
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask

WARMUP_SHARE = 0.05
CHECKPOINT = "checkpoint"
"""Name of the Hugging Face checkpoint inside the Ray Train checkpoint."""
UNSEEN = -1.0
"""Macro-F1 of a checkpoint that was not asked: below all that were."""


@dataclass(frozen=True)
class LoopConfig:
    """What a worker needs; everything is picklable, and nothing is about a patient: Ray Train shows it on its
    dashboard."""

    base: str
    """Folder or name of the base model."""
    arm: ArmConfig
    settings: StudentConfig
    task: DiagnosisTask
    seed: int
    steps: int
    """Optimizer steps."""
    learning_rate: float
    run: str
    """Run folder."""
    examples: str
    """Table in it with EXAMPLES of the training split."""
    validation: str | None
    """Table in it with `label`, `prompt` and `picture` of the visits that the student is asked about meanwhile."""
    logs: str | None
    """Folder for TensorBoard's files."""
    name: str
    """Of the student, for the loggers."""
    progress: Queue
    """Takes (step, steps, note) from rank 0."""


class _Report(TrainerCallback):
    """Progress to the driver, each saved checkpoint to Ray Train, and when to ask and to save."""

    def __init__(self, progress: Queue, steps: int, evaluations: int) -> None:
        self._progress = progress
        self._asked_at = {round(steps * number / evaluations) for number in range(1, evaluations + 1)}
        self._steps = steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if state.global_step in self._asked_at:
            control.should_evaluate = control.should_save = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        # Such a step is saved already.
        control.should_save = control.should_save and state.global_step not in self._asked_at
        return control

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if state.is_world_process_zero and logs:
            notes = {"loss": logs.get("loss"), "macro-F1": logs.get(MACRO_F1)}
            note = ", ".join(f"{name} {value:.4f}" for name, value in notes.items() if value is not None)
            self._progress.put((state.global_step, self._steps, note))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        found = {log["step"]: log[MACRO_F1] for log in state.log_history if MACRO_F1 in log}
        losses = [log["loss"] for log in state.log_history if "loss" in log]
        metrics = {"step": state.global_step, MACRO_F1: found.get(state.global_step, UNSEEN)}
        metrics.update({"loss": losses[-1]} if losses else {})
        if not state.is_world_process_zero:
            ray.train.report(metrics)  # every rank must report; rank 0 brings the checkpoint
            return
        saved = get_last_checkpoint(args.output_dir)
        if saved is None:
            raise RuntimeError(f"no checkpoint in {args.output_dir} after a save")
        with tempfile.TemporaryDirectory() as folder:
            Path(saved).rename(Path(folder, CHECKPOINT))
            ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def train_loop(config: dict[str, Any]) -> None:
    """`config["loop"]` is a LoopConfig. Continues from the run's last checkpoint where there is one."""
    loop: LoopConfig = config["loop"]
    set_seed(loop.seed)
    if loop.logs is not None:
        os.environ["TENSORBOARD_LOGGING_DIR"] = loop.logs
    with tempfile.TemporaryDirectory() as output, no_room_named(f"{output} or {loop.run}"):
        trainer = build_trainer(loop, output)
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            trainer.train()
            return
        with checkpoint.as_directory() as folder:
            saved = Path(folder, CHECKPOINT)
            # Where it had ended and only the export is missing, it would take one step more.
            if TrainerState.load_from_json(str(saved / TRAINER_STATE_NAME)).global_step < loop.steps:
                trainer.train(resume_from_checkpoint=str(saved))


def build_trainer(loop: LoopConfig, output: str) -> AskedTrainer:
    """The trainer of this worker, whose files go to `output`."""
    settings, run = loop.settings, RunFolder(loop.run)
    processor = student_processor(loop.base, settings)
    common = {
        "macro_f1": _asker(loop, run, processor),
        "patience": settings.validation.patience,
        "step_examples": settings.batch_size,
        "args": _arguments(loop, output, ray.train.get_context().get_world_size()),
        "callbacks": [_Report(loop.progress, loop.steps, settings.validation.evaluations)],
    }
    if settings.family != "decoder":
        rows = run.read_table(loop.examples).to_pylist()
        return plain_trainer(loop.base, settings, loop.arm, loop.task, processor, run, rows, **common)
    texts = TokenTexts(tokenizer_of(processor))
    trainer = Distiller(
        arm=loop.arm,
        options=option_tokens(texts, loop.arm.answers, loop.task) if loop.arm.soft_labels else [],
        model=load_model(settings, loop.base),
        train_dataset=_dataset(run, loop),
        processing_class=processor,
        peft_config=adapter_config(settings.lora),
        **common,
    )
    trainer.data_collator = AnswerCollator(trainer.data_collator, texts, loop.task, loop.arm, run)
    return trainer


def _asker(loop: LoopConfig, run: RunFolder, processor: Any) -> ValidationAsker | None:
    """None where the student is not asked while it learns."""
    context, settings = ray.train.get_context(), loop.settings
    if loop.validation is None:
        return None
    workers = context.get_world_size()
    return ValidationAsker(
        run.read_table(loop.validation).to_pylist(),
        loop.arm.answers,
        loop.task,
        processor,
        settings.sampling.max_tokens,
        run,
        context.get_world_rank(),
        workers,
        template=settings.engine.chat_template_kwargs,
        sharded=settings.training.sharding == "fsdp2" and workers > 1,
        answers=None if settings.family == "decoder" else PlainAnswers(settings, processor, loop.task),
    )


def _dataset(run: RunFolder, loop: LoopConfig) -> Dataset:
    """Columns that TRL reads, and those of the loss. Lengths are those of the texts; all pictures have one size."""
    rows = run.read_table(loop.examples).to_pylist()
    names = ("ask", "weight", "soft_label", "prompt", "completion", "length", "teacher_ids", "teacher_candidates")
    pictures, template = loop.settings.inputs != "text", loop.settings.engine.chat_template_kwargs
    every = {"chat_template_kwargs": template} if template else {}
    return Dataset.from_list(
        [
            {**{name: row[name] for name in names}, **every, **({"images": [row["picture"]]} if pictures else {})}
            for row in rows
        ]
    )


def _arguments(loop: LoopConfig, output: str, workers: int) -> SFTConfig:
    settings, training = loop.settings, loop.settings.training
    gpu = training.gpus_per_worker > 0
    share = settings.batch_size // workers
    micro = max(size for size in range(1, settings.micro_batch_size + 1) if share % size == 0)
    precision = training.precision or ("bfloat16" if gpu else "float32")
    return SFTConfig(
        output_dir=output,
        run_name=loop.name,
        max_steps=loop.steps,
        learning_rate=loop.learning_rate,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=share // micro,
        # What is too long was rejected before; a picture's tokens must never be cut.
        max_length=settings.max_length if training.batching == "packing" else None,
        packing=training.batching == "packing",
        completion_only_loss=True,
        remove_unused_columns=False,
        train_sampling_strategy="group_by_length" if training.batching == "group_by_length" else "random",
        length_column_name="length",
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(WARMUP_SHARE * loop.steps)),
        weight_decay=0.01,
        logging_steps=training.log_every,
        save_strategy="epoch",
        save_total_limit=1,
        seed=loop.seed,
        bf16=precision == "bfloat16",
        use_cpu=not gpu,
        report_to=[name for name in training.log_to if name != "tensorboard" or loop.logs],
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
        gradient_checkpointing=training.gradient_checkpointing,
        **(FSDP2 if training.sharding == "fsdp2" and workers > 1 else {}),
    )
