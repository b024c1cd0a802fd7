"""Train a small Llama from random weights on the project's own text. The recipe is data: `ReferenceConfig`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from clinical_reasoner.config.reference import Phase, ReferenceConfig
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.progress import ProgressBar
from clinical_reasoner.reference.corpus import CorpusSpec, chats, restatements
from clinical_reasoner.reference.tokenizer import END

IGNORED = -100
_BATCHES_SORTED = 8


class Example(NamedTuple):
    tokens: list[int]
    targets: list[int]
    """`tokens` where an assistant speaks, IGNORED elsewhere."""
    weights: list[float]
    """Loss weight of each target."""


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


def encode(chat: list[Message], tokenizer: PreTrainedTokenizerFast, option_weight: float) -> Example:
    """Tokens of a chat; the loss is on assistant turns, and more on the option letter that follows "Diagnosis: ("."""
    tokens: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    for message in chat:
        text = message["content"] + END
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        role = int(tokenizer.vocab[f"<|{message['role']}|>"])
        ids = encoded["input_ids"]
        spoken = message["role"] == "assistant"
        letter = text.rfind("Diagnosis: (") + len("Diagnosis: (") if spoken and "Diagnosis: (" in text else -1
        tokens += [role, *ids]
        targets += [IGNORED, *(ids if spoken else [IGNORED] * len(ids))]
        weights += [0.0, *(option_weight if start == letter else 1.0 for start, _ in encoded["offset_mapping"])]
    return Example(tokens, targets, weights)


def batches(
    spec: CorpusSpec, phase: Phase, tokenizer: PreTrainedTokenizerFast, config: ReferenceConfig
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Endless padded batches (tokens, attention, targets, weights), each (batch, length); similar lengths together."""
    text = restatements(spec) if phase.text == "restatements" else chats(spec, phase.max_shots)
    examples = (encode(chat, tokenizer, config.option_weight) for chat in text)
    fitting = (example for example in examples if len(example.tokens) <= config.context)
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        pool = sorted(islice(fitting, phase.batch * _BATCHES_SORTED), key=lambda example: len(example.tokens))
        for index in torch.randperm(_BATCHES_SORTED, generator=generator).tolist():
            yield _pad(pool[index * phase.batch : (index + 1) * phase.batch], tokenizer.pad_token_id)


def _pad(rows: list[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    longest = max(len(row.tokens) for row in rows)
    fill = [longest - len(row.tokens) for row in rows]
    tokens = torch.tensor([row.tokens + [pad] * n for row, n in zip(rows, fill, strict=True)])
    attention = torch.tensor([[1] * len(row.tokens) + [0] * n for row, n in zip(rows, fill, strict=True)])
    targets = torch.tensor([row.targets + [IGNORED] * n for row, n in zip(rows, fill, strict=True)])
    weights = torch.tensor([row.weights + [0.0] * n for row, n in zip(rows, fill, strict=True)])
    return tokens, attention, targets, weights


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
    """All phases, one after the other. Returns the model (float32, on the CPU) and the loss every 50 steps."""
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = new_model(config, tokenizer)
    torch.nn.Module.to(model, device)
    losses: list[float] = []
    for phase in config.phases:
        losses += _train_phase(model, phase, batches(spec, phase, tokenizer, config), config, device)
    torch.nn.Module.to(model, "cpu")
    return model.eval(), losses


def _train_phase(
    model: LlamaForCausalLM,
    phase: Phase,
    stream: Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]],
    config: ReferenceConfig,
    device: str,
) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, phase))
    recent, history = 0.0, list[float]()
    model.train()
    with ProgressBar(f"{config.role}, up to {phase.max_shots} exemplars", phase.steps) as bar:
        for step, batch in enumerate(islice(stream, phase.steps), start=1):
            tokens, attention, targets, weights = (tensor.to(device) for tensor in batch)
            with torch.autocast(device, torch.bfloat16):
                logits = model(input_ids=tokens, attention_mask=attention).logits
            loss = weighted_loss(logits, targets, weights)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            recent += loss.item()
            if step % 50 == 0:
                history.append(recent / 50)
                recent = 0.0
            bar.update(step, f"loss {history[-1]:.4f}" if history else "")
    return history


def _cosine(step: int, phase: Phase) -> float:
    """Learning-rate factor: linear warm-up, then cosine to 5 %."""
    if step < phase.warmup_steps:
        return (step + 1) / phase.warmup_steps
    done = (step - phase.warmup_steps) / max(1, phase.steps - phase.warmup_steps)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
