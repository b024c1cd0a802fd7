"""Train a small Llama from random weights on the project's own text. The recipe is data: `ReferenceConfig`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from clinical_reasoner.config.reference import Phase, ReferenceConfig, Schedule
from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.progress import ProgressBar
from clinical_reasoner.reference.corpus import CorpusSpec, chats, restatements
from clinical_reasoner.reference.tokenizer import END
from clinical_reasoner.task import DiagnosisTask

IGNORED = -100
_BATCHES_SORTED = 8


class Example(NamedTuple):
    tokens: list[int]
    targets: list[int]
    """`tokens` where an assistant speaks, IGNORED elsewhere."""
    weights: list[float]
    """Loss weight of each target."""


class Batch(NamedTuple):
    """Right-padded, each (batch, length). No attention mask: what is causal never sees the padding behind it."""

    tokens: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def new_model(config: ReferenceConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights, tied embeddings, and the tokenizer's end as its end."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.width // config.head_width,
            num_key_value_heads=config.width // config.head_width,
            head_dim=config.head_width,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


def check_size(model: LlamaForCausalLM, config: ReferenceConfig) -> None:
    """Raises UserError when the weights in bf16, as they are saved, take more than `max_megabytes`."""
    megabytes = torch.bfloat16.itemsize * sum(tensor.numel() for tensor in model.parameters()) / 1e6
    if megabytes > config.max_megabytes:
        raise UserError(f"{megabytes:.1f} MB of weights, more than max_megabytes={config.max_megabytes:g}; make fewer")


class Emphasis(NamedTuple):
    """Loss weights in assistant turns, where everything else weighs 1."""

    option: float
    """Of the option letter that follows "Diagnosis: ("."""
    copied: float
    """Of each token of `words`."""
    words: re.Pattern[str]


def emphasis(option_weight: float, schedule: Schedule, task: DiagnosisTask) -> Emphasis:
    """What is copied from a description: grades and numbers."""
    grades = "|".join(re.escape(name) for name in task.grade_names)
    return Emphasis(option_weight, schedule.copied_weight, re.compile(rf"(?i)\b(?:{grades}|\d+)\b"))


def encode(chat: list[Message], tokenizer: PreTrainedTokenizerFast, weigh: Emphasis) -> Example:
    """Tokens of a chat; the loss is on assistant turns."""
    tokens: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for message in chat:
        text = message["content"] + END
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        role = int(tokenizer.vocab[f"<|{message['role']}|>"])
        ids = encoded["input_ids"]
        spoken = message["role"] == "assistant"
        tokens += [role, *ids]
        targets += [IGNORED, *(ids if spoken else [IGNORED] * len(ids))]
        weights += [0.0, *_weights(text, encoded["offset_mapping"], weigh)]
    return Example(tokens, targets, weights)


def _weights(text: str, spans: Sequence[tuple[int, int]], weigh: Emphasis) -> Iterator[float]:
    letter = text.rfind("Diagnosis: (") + len("Diagnosis: (") if "Diagnosis: (" in text else -1
    copied = {place for match in weigh.words.finditer(text) for place in range(*match.span())}
    for start, end in spans:
        if start == letter:
            yield weigh.option
        else:
            yield weigh.copied if copied.intersection(range(start, end)) else 1.0


def batches(
    spec: CorpusSpec, phase: Phase, tokenizer: PreTrainedTokenizerFast, config: ReferenceConfig
) -> Iterator[Batch]:
    """Endless batches, similar lengths together."""
    text = restatements(spec) if phase.text == "restatements" else chats(spec, phase.max_shots)
    weigh = emphasis(config.option_weight, phase, spec.task)
    examples = (encode(chat, tokenizer, weigh) for chat in text)
    fitting = (example for example in examples if len(example.tokens) <= config.context)
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        pool = sorted(islice(fitting, phase.batch * _BATCHES_SORTED), key=lambda example: len(example.tokens))
        for index in torch.randperm(_BATCHES_SORTED, generator=generator).tolist():
            yield pad(pool[index * phase.batch : (index + 1) * phase.batch], tokenizer.pad_token_id)


def pad(rows: list[Example], pad: int) -> Batch:
    longest = max(len(row.tokens) for row in rows)
    fill = [longest - len(row.tokens) for row in rows]
    tokens = torch.tensor([row.tokens + [pad] * n for row, n in zip(rows, fill, strict=True)])
    targets = torch.tensor([row.targets + [IGNORED] * n for row, n in zip(rows, fill, strict=True)])
    weights = torch.tensor([row.weights + [0.0] * n for row, n in zip(rows, fill, strict=True)])
    return Batch(tokens, targets, weights)


def weighted_loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross-entropy of the next token. logits (batch, length, vocabulary); targets and weights
    (batch, length)."""
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets[:, 1:].flatten(), ignore_index=IGNORED, reduction="none"
    )
    scale = weights[:, 1:].flatten() * (targets[:, 1:].flatten() != IGNORED)
    return (losses * scale).sum() / scale.sum()


def train(
    config: ReferenceConfig, spec: CorpusSpec, tokenizer: PreTrainedTokenizerFast
) -> tuple[LlamaForCausalLM, list[float]]:
    """All phases, one after the other. Returns the model (float32, on the CPU) and the loss every 50 steps.

    Raises UserError at once when the weights would be too large.
    """
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = new_model(config, tokenizer)
    check_size(model, config)
    torch.nn.Module.to(model, device)
    losses: list[float] = []
    for phase, seed in zip(config.phases, config.text_seeds, strict=True):
        text = replace(spec, seed=seed, gap_share=phase.gap_share)
        losses += _train_phase(model, phase, batches(text, phase, tokenizer, config), config, device)
    torch.nn.Module.to(model, "cpu")
    return model.eval(), losses


def _train_phase(
    model: LlamaForCausalLM,
    phase: Phase,
    stream: Iterator[Batch],
    config: ReferenceConfig,
    device: str,
) -> list[float]:
    def loss_of(batch: Batch) -> torch.Tensor:
        tokens, targets, weights = (tensor.to(device) for tensor in batch)
        # bf16 on GPUs alone: processors without its instructions emulate it, ten times slower than float32
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(input_ids=tokens).logits
        return weighted_loss(logits, targets, weights)

    model.train()
    title = f"{config.role}, up to {phase.max_shots} exemplars"
    return optimise(model.parameters(), map(loss_of, stream), phase, title)


def optimise(
    parameters: Iterable[torch.nn.Parameter], losses: Iterator[torch.Tensor], schedule: Schedule, title: str
) -> list[float]:
    """One step of AdamW on each of the first `steps` losses, which are computed when they are asked for. Returns their
    means of 50 steps."""
    trained = list(parameters)
    optimizer = torch.optim.AdamW(trained, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, schedule))
    recent, history = 0.0, list[float]()
    with ProgressBar(title, schedule.steps) as bar:
        for step, loss in enumerate(islice(losses, schedule.steps), start=1):
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad(set_to_none=True)
            recent += loss.item()
            if step % 50 == 0:
                history.append(recent / 50)
                recent = 0.0
            bar.update(step, f"loss {history[-1]:.4f}" if history else "")
    return history


def _cosine(step: int, schedule: Schedule) -> float:
    """Learning-rate factor: linear warm-up, then cosine to 5 %."""
    if step < schedule.warmup_steps:
        return (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, schedule.steps - schedule.warmup_steps)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
