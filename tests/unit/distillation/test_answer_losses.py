"""Losses on CPUs are those of all logits under the mask of padding, and so are their gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from clinical_reasoner.distillation.answer_losses import answer_losses

LENGTHS, ANSWERS = (12, 7, 9), (5, 2, 3)
"""Tokens of each example, and those of its answer, at its end."""


class WithoutArgument(torch.nn.Module):
    """A model that always gives all logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, logits_to_keep: Any = None, **inputs: Any) -> Any:
        return self.model(**inputs)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    sizes: Any = {
        "attn_implementation": "sdpa",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes))


def batch(left: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.zeros((len(LENGTHS), max(LENGTHS)), dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (length, answer) in enumerate(zip(LENGTHS, ANSWERS, strict=True)):
        end = max(LENGTHS) if left else length
        ids[row, end - length : end] = torch.randint(1, 50, (length,), generator=generator)
        mask[row, end - length : end] = 1
        labels[row, end - answer : end] = ids[row, end - answer : end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("wrap", [lambda model: model, WithoutArgument])
def test_losses_and_gradients_are_those_of_all_logits(model: Any, left: bool, wrap: Any) -> None:
    inputs = batch(left)
    ids, mask, labels = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    plain = cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none", ignore_index=-100)
    plain.sum().backward()
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    losses = answer_losses(wrap(model), inputs)
    losses.sum().backward()
    torch.testing.assert_close(losses, plain)
    torch.testing.assert_close([parameter.grad for parameter in model.parameters()], wanted)


def test_without_a_token_to_learn_there_is_a_loss_of_0(model: Any) -> None:
    inputs = batch()
    inputs["labels"][:] = -100
    losses = answer_losses(model, inputs)
    losses.sum().backward()
    assert losses.shape == (len(LENGTHS), max(LENGTHS) - 1) and losses.eq(0).all()


def test_positions_of_joined_texts_keep_their_mask(model: Any) -> None:
    seen: list[set[str]] = []
    inputs = batch()
    for more in ({}, {"position_ids": torch.arange(max(LENGTHS)).expand(len(LENGTHS), -1)}):
        hook = model.register_forward_pre_hook(lambda _, args, given: seen.append(set(given)), with_kwargs=True)
        answer_losses(model, {**inputs, **more})
        hook.remove()
    assert ["attention_mask" in given for given in seen] == [False, True]
