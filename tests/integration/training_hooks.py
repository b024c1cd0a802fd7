"""What tests do inside the workers of a training: write down what it learns from, slow it down, break it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Hook = Callable[[Any], None]
"""Takes the worker's LoopConfig before the training begins."""


def hooked(hook: Hook) -> Callable[[dict[str, Any]], None]:
    """The training loop of a worker after this hook."""

    def loop(config: dict[str, Any]) -> None:
        from clinical_reasoner.distillation.worker import train_loop

        _write(config["loop"], "starts", {"pid": os.getpid()})
        hook(config["loop"])
        train_loop(config)

    return loop


def written(run: str, name: str) -> list[Any]:
    """What hooks of all workers wrote, each as it went."""
    files = sorted(Path(run).glob(f"{name}*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def _write(loop: Any, name: str, row: Any) -> None:
    import ray.train

    rank = ray.train.get_context().get_world_rank()
    with Path(loop.run, f"{name}-{rank}.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def record_batches(loop: Any) -> None:
    """Tokens and labels of each example of each batch: [[[tokens, labels], ...], ...]."""
    from clinical_reasoner.distillation.collating import AnswerCollator

    collate = AnswerCollator.__call__

    def recording(self: Any, examples: list[Any]) -> Any:
        batch = collate(self, examples)
        _write(loop, "batches", _examples_of(batch))
        return batch

    AnswerCollator.__call__ = recording  # type: ignore[method-assign]


def _examples_of(batch: Any) -> list[Any]:
    """Joined texts begin where the place in the text is 0."""
    pairs = []
    for row, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)):
        if "position_ids" in batch:
            starts = [place for place, at in enumerate(batch["position_ids"][row].tolist()) if at == 0]
        else:
            starts = [0]
        ends = [*starts[1:], int(batch["attention_mask"][row].sum()) if "attention_mask" in batch else len(ids)]
        pairs += [[ids[start:end], labels[start:end]] for start, end in zip(starts, ends, strict=True)]
    return pairs


def slow(loop: Any) -> None:
    """Steps of half a second, and how many of the parameters this worker holds."""
    from transformers import TrainerCallback

    class Slow(TrainerCallback):
        def on_step_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
            time.sleep(0.5)

        def on_step_end(self, *_: Any, model: Any = None, **__: Any) -> None:
            parameters = list(model.parameters())
            own = sum(getattr(one, "_local_tensor", one).numel() for one in parameters)
            _write(loop, "held", [own, sum(one.numel() for one in parameters)])

    _with_callback(Slow())


def poison(loop: Any) -> None:
    """Once a checkpoint is safe, a weight is no number."""

    def spoil(model: Any) -> None:
        import torch

        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))

    _after_first_save(spoil)


def fill_disk(loop: Any) -> None:
    """Once a checkpoint is safe, no file of this process can grow beyond 64 KiB."""

    def limit(_: Any) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))

    _after_first_save(limit)


def _after_first_save(act: Callable[[Any], None]) -> None:
    from transformers import TrainerCallback

    class AfterSave(TrainerCallback):
        def on_save(self, *_: Any, model: Any = None, **__: Any) -> None:
            act(model)

    _with_callback(AfterSave())


def _with_callback(callback: Any) -> None:
    """Behind those that the trainer has itself."""
    from clinical_reasoner.distillation.trainer import Distiller

    init = Distiller.__init__

    def with_callback(self: Any, **keywords: Any) -> None:
        init(self, **keywords)
        self.add_callback(callback)

    Distiller.__init__ = with_callback  # type: ignore[method-assign]
