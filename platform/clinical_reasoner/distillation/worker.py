"""The training loop of one Ray Train worker: TRL's SFTTrainer on the examples, a checkpoint after each epoch."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from datasets import Dataset
from ray.train import Checkpoint
from ray.util.queue import Queue
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from clinical_reasoner.runs import RunFolder

WARMUP_SHARE = 0.05
CHECKPOINT = "checkpoint"
"""Name of the Hugging Face checkpoint inside the Ray Train checkpoint."""


@dataclass(frozen=True)
class LoopConfig:
    """What a worker needs; everything is picklable."""

    base: str
    """Folder or name of the base model."""
    run: str
    """Run folder."""
    examples: str
    """Table in it with `prompt` and `completion`. Not the rows themselves: Ray Train shows this object on its
    dashboard."""
    steps: int
    """Optimizer steps."""
    learning_rate: float
    batch_size: int
    max_length: int
    seed: int
    gpu: bool
    progress: Queue
    """Takes (step, steps, loss or None) from rank 0."""


class _Report(TrainerCallback):
    """Sends progress to the driver, and each saved checkpoint to Ray Train."""

    def __init__(self, progress: Queue) -> None:
        self._progress = progress

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        if state.is_world_process_zero and logs:
            self._progress.put((state.global_step, state.max_steps, logs.get("loss")))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        metrics = {"step": state.global_step, "epoch": state.epoch}
        losses = [log["loss"] for log in state.log_history if "loss" in log]
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
    tokenizer = AutoTokenizer.from_pretrained(loop.base)
    rows = RunFolder(loop.run).read_table(loop.examples).to_pylist()
    with tempfile.TemporaryDirectory() as output:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(loop.base, dtype="float32"),
            args=_arguments(loop, output),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[_Report(loop.progress)],
        )
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            trainer.train()
            return
        with checkpoint.as_directory() as folder:
            trainer.train(resume_from_checkpoint=str(Path(folder, CHECKPOINT)))


def _arguments(loop: LoopConfig, output: str) -> SFTConfig:
    return SFTConfig(
        output_dir=output,
        max_steps=loop.steps,
        learning_rate=loop.learning_rate,
        per_device_train_batch_size=loop.batch_size,
        max_length=loop.max_length,
        completion_only_loss=True,
        train_sampling_strategy="group_by_length",
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(WARMUP_SHARE * loop.steps)),
        weight_decay=0.01,
        logging_steps=5,
        save_strategy="epoch",
        save_total_limit=1,
        seed=loop.seed,
        bf16=loop.gpu,
        use_cpu=not loop.gpu,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=loop.gpu,
        gradient_checkpointing=False,
    )
