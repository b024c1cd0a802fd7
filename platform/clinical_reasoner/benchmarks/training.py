"""Examples per second of the training loop against the plain Trainer of Transformers, and of two workers against one.

Same base, examples, steps and arguments, one thread each, every training in a process of its own. Plain and ours take
turns, each pair with a seed of its own: a drift of the machine's speed and a lucky order show, and average out.
The same epoch has the same answers to learn, and the loss on the same held-out examples is that after equal tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from statistics import harmonic_mean, mean
from typing import Any

from clinical_reasoner.benchmarks.processes import in_own_process
from clinical_reasoner.benchmarks.training_data import KINDS, Patients, SetName, configured_patients, make_set
from clinical_reasoner.benchmarks.training_runs import (
    EXAMPLES_TABLE,
    HELD_OUT_TABLE,
    SHARED,
    Job,
    Trained,
    train_ours,
    train_plainly,
)
from clinical_reasoner.cluster import local_or_name
from clinical_reasoner.config.arms import ArmConfig
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.bases import load_processor
from clinical_reasoner.errors import UserError
from clinical_reasoner.runs import RunFolder

HELD_OUT = 64
PLAIN, OURS, TWO = "plain", "ours", "ours, 2 workers"
ORDER: dict[SetName, tuple[tuple[str, int], ...]] = {
    "mixed": ((PLAIN, 0), (OURS, 0), (TWO, 0), (OURS, 1), (PLAIN, 1), (PLAIN, 2), (OURS, 2)),
    "uniform": ((PLAIN, 0), (OURS, 0), (OURS, 1), (PLAIN, 1), (PLAIN, 2), (OURS, 2)),
}
"""Trainings on each set, one after the other, with what is added to `student.seeds[0]`."""
Runs = list[tuple[str, Trained]]


def benchmark_training(config: PipelineConfig) -> dict[str, Any]:
    """One epoch of the configured student over `cohort.patients` examples, without those of no full step."""
    patients, batch = configured_patients(config), config.student.batch_size
    count = patients.count // batch * batch
    _check(config, count)
    runs: dict[SetName, Runs] = {}
    lengths: dict[SetName, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, order in ORDER.items():
            job, lengths[name] = _job(config, patients, name, count, f"{folder}/{name}")
            runs[name] = [(kind, _told(name, kind, replace(job, seed=job.seed + more))) for kind, more in order]
            check_same(runs[name])
    print(table_of(runs, count))
    return {"benchmark": "training", **figures(runs, count), "examples": count, "tokens_min_mean_max": lengths}


def _check(config: PipelineConfig, count: int) -> None:
    student = config.student
    if student.inputs != "text" or student.lora is not None:
        raise UserError("the benchmark `training` trains all weights of a text student: inputs=text and no lora")
    if student.batch_size % (2 * student.micro_batch_size):
        raise UserError("the benchmark `training` takes a batch_size that is a multiple of twice micro_batch_size")
    if not count:
        raise UserError("the benchmark `training` takes cohort.patients of at least student.batch_size")


def _job(config: PipelineConfig, patients: Patients, name: SetName, count: int, path: str) -> tuple[Job, list[int]]:
    """The job with its two tables written, and the shortest, mean and longest example, tokens."""
    student, run = config.student, RunFolder(path)
    processor = load_processor(local_or_name(student.base), pictures=False)
    table = make_set(patients, name, 0, count, processor)
    run.write_table(EXAMPLES_TABLE, table)
    run.write_table(HELD_OUT_TABLE, make_set(patients, name, count, HELD_OUT, processor))
    arm = ArmConfig(answers="direct", tasks={ask: 1.0 for ask, _ in KINDS[name]})
    settings = student.model_copy(update={"validation": student.validation.model_copy(update={"evaluations": 0})})
    rate, seed = student.learning_rate_of(student.arms[0]), student.seeds[0]
    lengths = table["length"].to_pylist()
    job = Job(settings, arm, patients.task, rate, seed, count // student.batch_size, path)
    return job, [min(lengths), round(mean(lengths)), max(lengths)]


def _told(name: SetName, kind: str, job: Job) -> Trained:
    one = in_own_process(train_plainly, job) if kind == PLAIN else in_own_process(train_ours, job, 1 + (kind == TWO))
    print(f"{name}, {kind}: {one.seconds:.1f} s, {one.cpu_seconds:.1f} s of one CPU, loss {one.loss:.4f}", flush=True)
    return one


def check_same(runs: Runs) -> None:
    """Raises RuntimeError where not all learnt the same tokens, or those with one worker not by the same arguments."""
    if len({one.learnt_tokens for _, one in runs}) > 1:
        raise RuntimeError(f"tokens that are learnt differ: {[(kind, one.learnt_tokens) for kind, one in runs]}")
    first = runs[0][1]
    for kind, one in runs:
        differing = {name for name in SHARED if one.arguments[name] != first.arguments[name]}
        if kind != TWO and (differing or one.threads != first.threads):
            raise RuntimeError(f"{kind} differs in {sorted(differing)}, threads {one.threads} and {first.threads}")


def figures(runs: dict[SetName, Runs], count: int) -> dict[str, Any]:
    """Ratios of examples per second, rates, and losses; `cpu` is by the time of the process on its CPU."""
    rates = {name: _means(found, lambda one: count / one.seconds) for name, found in runs.items()}
    cpu = {name: _means(found, lambda one: count / one.cpu_seconds) for name, found in runs.items()}
    ratios = {name: rate[OURS] / rate[PLAIN] for name, rate in rates.items()}
    cpu_ratios = {name: rate[OURS] / rate[PLAIN] for name, rate in cpu.items()}
    return {
        "ratio": round(ratios["mixed"], 3),
        "ratio_uniform": round(ratios["uniform"], 3),
        "cpu_ratio": {name: round(ratio, 3) for name, ratio in cpu_ratios.items()},
        "examples_per_s": {name: {kind: round(one, 2) for kind, one in rate.items()} for name, rate in rates.items()},
        "loss": {
            name: {kind: round(loss, 4) for kind, loss in _means(found, lambda one: one.loss, mean).items()}
            for name, found in runs.items()
        },
        "loss_differences": {name: loss_differences(found) for name, found in runs.items()},
        "learnt_tokens": {name: found[0][1].learnt_tokens for name, found in runs.items()},
        "scaling_1_to_2": round(rates["mixed"][TWO] / rates["mixed"][OURS], 3),
    }


def loss_differences(runs: Runs) -> list[float]:
    """Of each pair with one seed, the loss of ours minus the plain one's."""
    plain, ours = ([one.loss for kind, one in runs if kind == wanted] for wanted in (PLAIN, OURS))
    return [round(own - other, 4) for own, other in zip(ours, plain, strict=True)]


def _means(
    runs: Runs, value: Callable[[Trained], float], average: Callable[[list[float]], float] = harmonic_mean
) -> dict[str, float]:
    """Of each kind of training; the harmonic mean of rates is all examples over all seconds."""
    return {kind: average([value(one) for other, one in runs if other == kind]) for kind in dict(runs)}


def table_of(runs: dict[SetName, Runs], count: int) -> str:
    """For people: a line per set and kind of training."""
    lines = [f"{'examples':<10}{'training':<17}{'examples/s':>12}{'per CPU s':>12}{'held-out loss':>15}"]
    for name, found in runs.items():
        rates, cpu = _means(found, lambda one: count / one.seconds), _means(found, lambda one: count / one.cpu_seconds)
        losses = _means(found, lambda one: one.loss, mean)
        lines += [f"{name:<10}{kind:<17}{rates[kind]:>12.2f}{cpu[kind]:>12.2f}{losses[kind]:>15.4f}" for kind in rates]
    return "\n".join(lines)
