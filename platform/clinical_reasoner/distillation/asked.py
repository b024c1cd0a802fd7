"""transformers' Trainer with the order of examples and the macro-F1 of the model's answers while it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import Trainer

from clinical_reasoner.distillation.collating import IGNORED
from clinical_reasoner.distillation.failures import LossError
from clinical_reasoner.distillation.sampling import EpochSampler

MACRO_F1 = "eval_macro_f1"
Logs = dict[str, float]


class AskedTrainer(Trainer):
    """Takes the examples in the order of EpochSampler, and asks the model about the validation split meanwhile."""

    def __init__(
        self, *, macro_f1: Callable[[Any], float] | None, patience: int | None, step_examples: int, **keywords: Any
    ) -> None:
        """`macro_f1` asks the model; training stops after `patience` evaluations without a better one. `step_examples`:
        those of one optimizer step, over all workers."""
        super().__init__(**keywords)
        self._step_examples = step_examples
        self._macro_f1, self._patience = macro_f1, patience

    def mean_loss(
        self, losses: torch.Tensor, weights: torch.Tensor, labels: torch.Tensor, items: Any = None
    ) -> torch.Tensor:
        """Sum of the weighted losses (B, L) over the number of labels that count, here or in the whole step (`items`).
        Raises LossError on NaN."""
        count = (labels != IGNORED).sum() if items is None else items
        loss = (losses * weights).sum() / torch.as_tensor(count).clamp(min=1)
        if not torch.isfinite(loss):
            step = self.state.global_step + 1
            raise LossError(f"the loss of step {step} is {loss.item()}; a lower student.learning_rate may help")
        # The number of tokens is that of all workers, and DDP takes the mean of their gradients.
        if self.args.average_tokens_across_devices and items is not None:
            loss = loss * self.accelerator.num_processes
        return loss

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Raises LossError instead of saving weights from which no restart could go on."""
        if not all(bool(torch.isfinite(_of_this_worker(one)).all()) for one in model.parameters()):
            raise LossError(
                f"weights are no numbers after step {self.state.global_step}; a lower student.learning_rate may help"
            )
        parent: Any = super()
        parent._save_checkpoint(model, trial)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        data: Any = self.train_dataset if train_dataset is None else train_dataset
        grouped = self.args.train_sampling_strategy == "group_by_length"
        lengths = data[self.args.length_column_name] if grouped else None
        return EpochSampler(len(data), self._step_examples, self.args.seed, lengths)

    def evaluate(self, *_: Any, **__: Any) -> Logs:
        """`{"eval_macro_f1": ...}` of the answers about the validation split, 0 to 1, higher is better."""
        if self._macro_f1 is None:
            return {}
        self.model_wrapped.eval()
        metrics = {MACRO_F1: self._macro_f1(self.model_wrapped)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        found = [log[MACRO_F1] for log in self.state.log_history if MACRO_F1 in log]
        if self._patience is not None and len(found) - 1 - found.index(max(found)) >= self._patience:
            self.control.should_training_stop = True
        return metrics


def _of_this_worker(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
