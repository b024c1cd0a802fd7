"""Drive one training under Ray Train: workers, restarts, checkpoints in the run folder, progress on the terminal."""

from __future__ import annotations

import tempfile
import threading
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import pyarrow as pa

from clinical_reasoner.cluster import connect, local_or_name
from clinical_reasoner.config.student import Arm, StudentConfig
from clinical_reasoner.progress import ProgressBar
from clinical_reasoner.runs import RunFolder


@dataclass(frozen=True)
class TrainingPlan:
    arm: Arm
    steps: int
    """Optimizer steps."""
    logical_cpus: int
    """Of a Ray that is started for it."""


def training_steps(student: StudentConfig, arm: Arm, visits: int) -> int:
    """Steps of `epochs` passes over all `visits` of the training split, whatever part of them has a usable rationale:
    arms with the same epochs then take the same number of steps."""
    return max(1, ceil(student.epochs[arm] * visits / (student.batch_size * student.workers)))


def train_student(run: RunFolder, work: str, plan: TrainingPlan, student: StudentConfig, examples: pa.Table) -> Any:
    """Train one arm; returns the final ray.train.Checkpoint.

    Checkpoints lie below `work` in the run folder, a name of its own for these settings: a killed training continues
    from the last one.
    """
    connect(plan.logical_cpus)
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    from clinical_reasoner.distillation.worker import LoopConfig, train_loop

    progress = Queue(actor_options={"num_cpus": 0})
    gpu = student.gpus_per_worker > 0
    run.write_table(f"{work}/examples", examples.select(["prompt", "completion"]))
    loop = LoopConfig(
        base=local_or_name(student.base),
        run=run.path,
        examples=f"{work}/examples",
        steps=plan.steps,
        learning_rate=student.learning_rate[plan.arm],
        batch_size=student.batch_size,
        max_length=student.max_length,
        seed=student.seed,
        gpu=gpu,
        progress=progress,
    )
    per_worker = {"CPU": 1.0, **({"GPU": student.gpus_per_worker} if gpu else {})}
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"loop": loop},
        scaling_config=ScalingConfig(num_workers=student.workers, use_gpu=gpu, resources_per_worker=per_worker),
        run_config=RunConfig(
            name="training",
            storage_path=run.child(work),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=student.max_failures),
        ),
    )
    return _fit(trainer, progress, plan).checkpoint


def _fit(trainer: Any, progress: Any, plan: TrainingPlan) -> Any:
    """`trainer.fit()` with a progress bar fed by the workers. It stays on the main thread, where a signal ends it."""
    from ray.util.queue import Empty

    ended = threading.Event()
    with ProgressBar(f"student {plan.arm}", plan.steps) as bar:

        def feed() -> None:
            while not ended.is_set():
                try:
                    step, steps, loss = progress.get(timeout=0.5)
                except Empty:
                    continue
                bar.update(step, "" if loss is None else f"loss {loss:.4f}", total=steps)

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        try:
            return trainer.fit()
        finally:
            ended.set()
            feeder.join(timeout=2)


def export_student(checkpoint: Any, run: RunFolder, name: str, card: str) -> None:
    """Write a Hugging Face folder that transformers and vLLM load as it is: bf16 weights, tokenizer, chat template,
    generation config and model card."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from clinical_reasoner.distillation.worker import CHECKPOINT

    disable_progress_bar()  # of reading and writing one small file
    with checkpoint.as_directory() as folder, tempfile.TemporaryDirectory() as output:
        trained = str(Path(folder, CHECKPOINT))
        model = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.bfloat16)
        model.generation_config.do_sample = False
        model.save_pretrained(output)
        AutoTokenizer.from_pretrained(trained).save_pretrained(output)
        Path(output, "README.md").write_text(card, encoding="utf-8")
        run.put_folder(output, name)
