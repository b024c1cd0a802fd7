"""Drive one training under Ray Train: workers, restarts, checkpoints in the run folder, progress on the terminal."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from clinical_reasoner.cluster import connect, local_or_name
from clinical_reasoner.config.student import Arm, StudentConfig
from clinical_reasoner.progress import ProgressBar
from clinical_reasoner.runs import RunFolder


def train_student(
    run: RunFolder, work: str, arm: Arm, student: StudentConfig, examples: pa.Table, logical_cpus: int
) -> Any:
    """Train one arm; returns the final ray.train.Checkpoint.

    Checkpoints lie below `work` in the run folder, a name of its own for these settings: a killed training continues
    from the last one.
    """
    connect(logical_cpus)
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    from clinical_reasoner.distillation.worker import LoopConfig, train_loop

    progress = Queue(actor_options={"num_cpus": 0})
    gpu = student.gpus_per_worker > 0
    loop = LoopConfig(
        base=local_or_name(student.base),
        examples=examples.to_pylist(),
        epochs=student.epochs[arm],
        learning_rate=student.learning_rate[arm],
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
    return _fit(trainer, progress, arm).checkpoint


def _fit(trainer: Any, progress: Any, arm: Arm) -> Any:
    """`trainer.fit()` with a progress bar fed by the workers."""
    from ray.util.queue import Empty

    with ThreadPoolExecutor(max_workers=1) as pool, ProgressBar(f"student {arm}", total=1) as bar:
        result = pool.submit(trainer.fit)
        while not result.done():
            try:
                step, steps, loss = progress.get(timeout=0.5)
            except Empty:
                continue
            bar.update(step, "" if loss is None else f"loss {loss:.4f}", total=steps)
        return result.result()


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
