"""Drive one training under Ray Train: workers, restarts, checkpoints in the run folder, progress on the terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any

import pyarrow as pa

from clinical_reasoner.cluster import connect, local_or_name
from clinical_reasoner.config.student import StudentConfig, TrainingConfig
from clinical_reasoner.distillation.failures import fit_with_restarts
from clinical_reasoner.distillation.students import Student
from clinical_reasoner.progress import ProgressBar
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask


def training_steps(settings: StudentConfig, arm: str, visits: int) -> int:
    """Optimizer steps of `epochs` passes over this many visits, each with one example: an arm of several tasks sees
    each of them less often in the same steps."""
    return max(1, ceil(settings.epochs_of(arm) * visits / settings.batch_size))


def train_student(
    run: RunFolder,
    work: str,
    student: Student,
    task: DiagnosisTask,
    examples: pa.Table,
    validation: pa.Table,
    steps: int,
    logical_cpus: int,
) -> tuple[Any, dict[str, float]]:
    """Train one student; returns the ray.train.Checkpoint to export and its metrics: the best one by macro-F1 on the
    validation split, or without evaluations the last one.

    Checkpoints lie below `work` in the run folder, a name of its own for these settings: a killed training continues
    from the last one.
    """
    connect(logical_cpus)
    from ray.util.queue import Queue

    from clinical_reasoner.distillation.worker import LoopConfig

    progress = Queue(actor_options={"num_cpus": 0})
    asked = student.settings.validation.evaluations > 0 and validation.num_rows > 0
    run.write_table(f"{work}/examples", examples.drop_columns(["patient_id", "visit_id"]))
    if asked:
        run.write_table(f"{work}/validation", validation.select(["label", "prompt", "picture"]))
    loop = LoopConfig(
        base=local_or_name(student.settings.base),
        arm=student.arm,
        settings=student.settings,
        task=task,
        seed=student.seed,
        steps=steps,
        learning_rate=student.settings.learning_rate_of(student.arm_name),
        run=run.path,
        examples=f"{work}/examples",
        validation=f"{work}/validation" if asked else None,
        logs=None if "://" in run.path else run.child(student.stage, "logs"),
        progress=progress,
    )
    storage, restarts = run.child(work), student.settings.training.max_failures
    with _shown(progress, student.stage, steps):
        result = fit_with_restarts(lambda: _trainer(loop, storage), restarts, student.stage, storage)
    return _best(result) if asked else (result.checkpoint, result.metrics)


def _trainer(loop: Any, storage: str) -> Any:
    from ray.train import CheckpointConfig, RunConfig
    from ray.train.torch import TorchTrainer

    from clinical_reasoner.distillation.asked import MACRO_F1
    from clinical_reasoner.distillation.worker import train_loop

    return TorchTrainer(
        train_loop,
        train_loop_config={"loop": loop},
        scaling_config=_scaling(loop.settings.training),
        run_config=RunConfig(
            name="training",
            storage_path=storage,
            # The last one is kept besides, for a restart.
            checkpoint_config=CheckpointConfig(num_to_keep=1, checkpoint_score_attribute=MACRO_F1),
        ),
    )


def _scaling(training: TrainingConfig) -> Any:
    from ray.train import ScalingConfig

    gpu = training.gpus_per_worker > 0
    # Ray types the pair for its other trainers alone.
    elastic: Any = (training.min_workers, training.workers)
    return ScalingConfig(
        num_workers=training.workers if training.min_workers in (None, training.workers) else elastic,
        use_gpu=gpu,
        resources_per_worker={"CPU": 1.0, **({"GPU": training.gpus_per_worker} if gpu else {})},
    )


def _best(result: Any) -> tuple[Any, dict[str, float]]:
    """The checkpoint with the highest macro-F1, the first of equal ones."""
    from clinical_reasoner.distillation.asked import MACRO_F1

    found = sorted(result.best_checkpoints, key=lambda pair: pair[1]["step"])
    checkpoint, metrics = max(found, key=lambda pair: pair[1][MACRO_F1])
    return checkpoint, metrics


@contextmanager
def _shown(progress: Any, name: str, steps: int) -> Iterator[None]:
    """A progress bar fed by the workers. The training stays on the main thread, where a signal ends it."""
    from ray.util.queue import Empty

    ended = threading.Event()
    with ProgressBar(name, steps) as bar:

        def feed() -> None:
            while not ended.is_set():
                try:
                    step, total, note = progress.get(timeout=0.5)
                except Empty:
                    continue
                bar.update(step, note, total=total)

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        try:
            yield
        finally:
            ended.set()
            feeder.join(timeout=2)
