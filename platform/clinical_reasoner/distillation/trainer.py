"""The loss of an arm on top of TRL's SFTTrainer, and the macro-F1 of the student's answers while it learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from trl import SFTTrainer

from clinical_reasoner.config.arms import ArmConfig
from clinical_reasoner.distillation.answer_losses import answer_losses
from clinical_reasoner.distillation.sampling import EpochSampler
from clinical_reasoner.distillation.sharding import check_sharded, shard_on_cpu
from clinical_reasoner.distillation.teacher_tokens import with_divergence

MACRO_F1 = "eval_macro_f1"
FROM_TEACHER = ("option_places", "soft_labels", "candidate_ids", "candidate_mass")
"""Of a batch: what the loss takes from the teacher besides the answer."""
Logs = dict[str, float]


class LossError(FloatingPointError):
    """The loss is not a number."""


class Distiller(SFTTrainer):
    """Weighs tokens by `token_weights` of the batch, and mixes in soft labels where the batch has them."""

    def __init__(
        self,
        *,
        arm: ArmConfig,
        options: list[int],
        macro_f1: Callable[[Any], float] | None,
        patience: int | None,
        step_examples: int,
        **keywords: Any,
    ) -> None:
        """`options`: token of each label's letter. `macro_f1` asks the model about the validation split; training stops
        after `patience` evaluations without a better one. `step_examples`: those of one optimizer step, over all
        workers."""
        super().__init__(**keywords)
        self._step_examples = step_examples
        self._arm, self._options, self._macro_f1, self._patience = arm, options, macro_f1, patience

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.fsdp and self.args.use_cpu and self.args.world_size > 1:
            shard_on_cpu(self.accelerator, self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum of the weighted token losses over the number of tokens that are learnt. Raises LossError on NaN."""
        if self.args.fsdp and self.args.world_size > 1:
            check_sharded(model)
        weights = inputs.pop("token_weights")[:, 1:]
        teacher = {name: inputs.pop(name) for name in FROM_TEACHER if name in inputs}
        labels = inputs["labels"][:, 1:]
        if not teacher and labels.device.type == "cpu":
            losses = answer_losses(model, inputs)
        elif not teacher:
            losses = -model(**inputs, use_cache=False, fused_lm_head=True).log_probs
        else:
            rest = {name: value for name, value in inputs.items() if name != "labels"}
            logits = model(**rest, use_cache=False).logits[:, :-1].float()
            losses = self._mixed(logits, labels, teacher)
        items = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = (losses * weights).sum() / torch.as_tensor(items).clamp(min=1)
        if not torch.isfinite(loss):
            raise LossError(f"loss is {loss.item()} at step {self.state.global_step}; a lower learning_rate may help")
        # The number of tokens is that of all workers, and DDP takes the mean of their gradients.
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return loss

    def _mixed(self, logits: torch.Tensor, labels: torch.Tensor, teacher: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, L) token losses with what the teacher thought of labels and tokens; logits (B, L, V)."""
        losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)
        if "candidate_ids" in teacher:
            ids, mass = teacher["candidate_ids"][:, 1:], teacher["candidate_mass"][:, 1:]
            losses = with_divergence(losses, logits, ids, mass, self._arm.token_distillation)
        if "soft_labels" in teacher:
            places, soft = teacher["option_places"][:, 1:], teacher["soft_labels"]
            losses = soft_label_losses(losses, logits, places, soft, self._options, self._arm.soft_labels)
        return losses

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


def soft_label_losses(
    losses: torch.Tensor,
    logits: torch.Tensor,
    places: torch.Tensor,
    soft: torch.Tensor,
    options: list[int],
    share: float,
) -> torch.Tensor:
    """(B, L) token losses; at the option letter (1 - share) x loss + share x KL(teacher || student) over the
    option letters (Hinton et al. 2015, arXiv:1503.02531, at temperature 1).

    losses (B, L), logits (B, L, V), places (B, L) bool, soft (B, K): a row of zeros has no soft label.
    """
    rows, tokens = places.nonzero(as_tuple=True)
    known = soft[rows].sum(-1) > 0
    rows, tokens = rows[known], tokens[known]
    student = log_softmax(logits[rows, tokens][:, options], dim=-1)
    divergence = kl_div(student, soft[rows].to(student), reduction="none").sum(-1)
    mixed = (1 - share) * losses[rows, tokens] + share * divergence
    return losses.index_put((rows, tokens), mixed)
