"""Token losses on CPUs: no logits where nothing is learnt, and no mask of padding that nobody sees.

TRL's fused head is written for GPUs; on CPUs it scores every position. Shapes: B examples, L tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from clinical_reasoner.distillation.collating import IGNORED


def answer_losses(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    """(B, L - 1) losses of the next tokens, 0 where it is not learnt."""
    labels = inputs["labels"][:, 1:]
    places = (labels != IGNORED).any(0).nonzero()[:, 0]
    seen = {name: value for name, value in inputs.items() if name != "labels" and not _idle(name, inputs)}
    logits = model(**seen, use_cache=False, logits_to_keep=places).logits
    if logits.shape[1] != len(places):  # a model that does not know the argument
        logits = logits[:, places]
    learnt = labels[:, places]
    losses = cross_entropy(logits.float().transpose(1, 2), learnt, reduction="none", ignore_index=IGNORED)
    return losses.new_zeros(labels.shape).index_copy(1, places, losses)


def _idle(name: str, inputs: dict[str, Any]) -> bool:
    """Whether it is the mask of texts that are padded behind: there, a causal model's tokens see no padding. Without
    the mask, attention leaves out what is above the diagonal."""
    if name != "attention_mask" or "position_ids" in inputs or "pixel_values" in inputs:
        return False
    mask = inputs[name]
    return bool(mask.dim() == 2 and (mask[:, 1:] <= mask[:, :-1]).all())
