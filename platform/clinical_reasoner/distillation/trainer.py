"""The loss of an arm on top of TRL's SFTTrainer."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from trl import SFTTrainer

from clinical_reasoner.config.arms import ArmConfig
from clinical_reasoner.distillation.answer_losses import answer_losses
from clinical_reasoner.distillation.asked import AskedTrainer
from clinical_reasoner.distillation.collating import IGNORED
from clinical_reasoner.distillation.sharding import check_sharded, shard_on_cpu
from clinical_reasoner.distillation.teacher_tokens import with_divergence

FROM_TEACHER = ("option_places", "soft_labels", "candidate_ids", "candidate_mass")
"""Of a batch: what the loss takes from the teacher besides the answer."""


class Distiller(AskedTrainer, SFTTrainer):
    """Weighs tokens by `token_weights` of the batch, and mixes in soft labels where the batch has them."""

    def __init__(self, *, arm: ArmConfig, options: list[int], **keywords: Any) -> None:
        """`options`: token of each label's letter."""
        super().__init__(**keywords)
        self._arm, self._options = arm, options

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
        return self.mean_loss(losses, weights, labels, num_items_in_batch)

    def _mixed(self, logits: torch.Tensor, labels: torch.Tensor, teacher: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, L) token losses with what the teacher thought of labels and tokens; logits (B, L, V)."""
        losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED)
        if "candidate_ids" in teacher:
            ids, mass = teacher["candidate_ids"][:, 1:], teacher["candidate_mass"][:, 1:]
            losses = with_divergence(losses, logits, ids, mass, self._arm.token_distillation)
        if "soft_labels" in teacher:
            places, soft = teacher["option_places"][:, 1:], teacher["soft_labels"]
            losses = soft_label_losses(losses, logits, places, soft, self._options, self._arm.soft_labels)
        return losses


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
