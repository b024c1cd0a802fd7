"""One training for the benchmark: by the project's own loop under Ray Train, and by the plain Trainer of Transformers.

Both are timed from the first batch to the end of the last step, without start-up, tokenizing and checkpoint.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from clinical_reasoner.benchmarks.training_data import learnt_tokens, tokenized
from clinical_reasoner.cluster import QUIET, connect, local_or_name
from clinical_reasoner.config.arms import ArmConfig
from clinical_reasoner.config.student import StudentConfig
from clinical_reasoner.distillation.bases import load_model, load_processor, tokenizer_of
from clinical_reasoner.distillation.collating import IGNORED
from clinical_reasoner.distillation.worker import WARMUP_SHARE, LoopConfig, build_trainer
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask

EXAMPLES_TABLE, HELD_OUT_TABLE = "examples", "held_out"
SHARED = (
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "bf16",
    "use_cpu",
    "logging_steps",
    "dataloader_num_workers",
)
"""Arguments that must be the same in all trainings of a set."""


@dataclass(frozen=True)
class Job:
    """What is trained on what. Picklable."""

    settings: StudentConfig
    arm: ArmConfig
    task: DiagnosisTask
    learning_rate: float
    seed: int
    steps: int
    run: str
    """Run folder with both tables."""


@dataclass(frozen=True)
class Trained:
    """One training."""

    seconds: float
    cpu_seconds: float
    """Of the first worker, which other processes on the machine hardly change."""
    learnt_tokens: int
    loss: float
    """Mean loss of an answer's token in the held-out set, after the last step."""
    threads: int
    arguments: dict[str, str]


class Clock(TrainerCallback):
    """Seconds from the first batch to the end of the last step."""

    def __init__(self) -> None:
        self._begun: tuple[float, float] | None = None
        self.seconds = self.cpu_seconds = 0.0

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        self._begun = self._begun or (time.perf_counter(), time.process_time())
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        if self._begun is not None:
            self.seconds, self.cpu_seconds = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
        return control


def train_plainly(job: Job) -> Trained:
    """`transformers.Trainer` with padding and random order on one thread, in a process that is its own."""
    os.environ.update(QUIET)
    torch.set_num_threads(1)
    set_seed(job.seed)
    processor = load_processor(local_or_name(job.settings.base), pictures=False)
    rows = RunFolder(job.run).read_table(EXAMPLES_TABLE).to_pylist()
    data, clock = tokenized(rows, processor), Clock()
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=load_model(job.settings, local_or_name(job.settings.base)),
            args=_plain_arguments(job, output),
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(tokenizer_of(processor)),
            callbacks=[clock],
        )
        trainer.train()
    return _trained(job, trainer, processor, clock, [row["labels"] for row in data])


def _plain_arguments(job: Job, output: str) -> TrainingArguments:
    settings, training = job.settings, job.settings.training
    gpu = training.gpus_per_worker > 0
    return TrainingArguments(
        output_dir=output,
        max_steps=job.steps,
        learning_rate=job.learning_rate,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.batch_size // settings.micro_batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(WARMUP_SHARE * job.steps)),
        weight_decay=0.01,
        logging_steps=5,
        save_strategy="no",
        seed=job.seed,
        bf16=(training.precision or ("bfloat16" if gpu else "float32")) == "bfloat16",
        use_cpu=not gpu,
        gradient_checkpointing=training.gradient_checkpointing,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=gpu,
    )


def train_ours(job: Job, workers: int) -> Trained:
    """The project's loop under Ray Train, in a process that is its own."""
    connect(logical_cpus=workers + 2)
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    training = job.settings.training.model_copy(update={"workers": workers, "min_workers": None})
    loop = LoopConfig(
        base=local_or_name(job.settings.base),
        arm=job.arm,
        settings=job.settings.model_copy(update={"training": training}),
        task=job.task,
        seed=job.seed,
        steps=job.steps,
        learning_rate=job.learning_rate,
        run=job.run,
        examples=EXAMPLES_TABLE,
        validation=None,
        logs=None,
        name="benchmark",
        progress=Queue(actor_options={"num_cpus": 0}),
    )
    gpus = {"GPU": training.gpus_per_worker} if training.gpus_per_worker else {}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "trained.json")
        TorchTrainer(
            timed_loop,
            train_loop_config={"loop": loop, "job": job, "result": str(result)},
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=bool(gpus), resources_per_worker={"CPU": 1.0, **gpus}
            ),
            run_config=RunConfig(name="training", storage_path=folder),
        ).fit()
        trained = Trained(**json.loads(result.read_text(encoding="utf-8")))
    ray.shutdown()
    return trained


def timed_loop(config: dict[str, Any]) -> None:
    """As `train_loop`, with a clock; the first worker writes what it found to `config["result"]`."""
    loop: LoopConfig = config["loop"]
    set_seed(loop.seed)
    with tempfile.TemporaryDirectory() as output:
        trainer = build_trainer(loop, output)
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    if trainer.is_world_process_zero():
        data: Any = trainer.train_dataset
        trained = _trained(config["job"], trainer, trainer.processing_class, clock, data["labels"])
        Path(config["result"]).write_text(json.dumps(asdict(trained)), encoding="utf-8")


def _trained(job: Job, trainer: Trainer, processor: Any, clock: Clock, labels: Any) -> Trained:
    rows = tokenized(RunFolder(job.run).read_table(HELD_OUT_TABLE).to_pylist(), processor)
    shown = {name: str(getattr(trainer.args, name)) for name in SHARED}
    loss = held_out_loss(trainer.model, rows)
    return Trained(clock.seconds, clock.cpu_seconds, learnt_tokens(labels), loss, torch.get_num_threads(), shown)


@torch.no_grad()
def held_out_loss(model: Any, rows: list[dict[str, list[int]]]) -> float:
    """Mean loss of the tokens that would be learnt."""
    model.eval()
    total, count = 0.0, 0
    for row in rows:
        ids, labels = (torch.tensor([row[name]], device=model.device) for name in ("input_ids", "labels"))
        logits = model(input_ids=ids).logits[0, :-1].float()
        total += float(cross_entropy(logits, labels[0, 1:], reduction="sum", ignore_index=IGNORED))
        count += int((labels[0, 1:] != IGNORED).sum())
    return total / count
