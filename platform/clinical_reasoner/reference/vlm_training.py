"""Train the reference vision-language model on pictures of phantoms: first to measure, then to say what they show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from transformers import Idefics3ForConditionalGeneration

from clinical_reasoner.config.reference import PicturePhase, VisionReferenceConfig
from clinical_reasoner.imaging.views import PICTURE_PIXELS, VIEW_PIXELS
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.progress import ProgressBar
from clinical_reasoner.reference.corpus import CorpusSpec
from clinical_reasoner.reference.picture_text import PictureChat, ask_chats, finding_chats
from clinical_reasoner.reference.pictures import Read
from clinical_reasoner.reference.training import Emphasis, Example, emphasis, encode, optimise, pad, weighted_loss
from clinical_reasoner.reference.vlm import pixels

OPTION_WEIGHT = 1.0
"""The option letters of the training text are drawn at random: there is nothing to learn in them."""
_PREPARED_TOGETHER = 50


@dataclass(frozen=True)
class Tiles:
    """Pictures as the processor makes them, in a quarter of the memory: all are grey."""

    grey: torch.Tensor
    """uint8 [pictures, tiles, height, width]."""
    scale: float
    shift: float
    """pixel value = grey * scale + shift."""

    def pixel_values(self, indices: Sequence[int]) -> torch.Tensor:
        """float32 [pictures, tiles, 3, height, width]."""
        chosen = self.grey[list(indices)].float() * self.scale + self.shift
        return chosen[:, :, None].expand(-1, -1, 3, -1, -1)


def prepare(processor: Any, pictures: np.ndarray) -> Tiles:
    """Of grey pictures (uint8 [pictures, height, width])."""
    images = processor.image_processor
    scale = images.rescale_factor / images.image_std[0]
    shift = -images.image_mean[0] / images.image_std[0]
    grey = []
    with ProgressBar("pictures into tiles", len(pictures)) as bar:
        for start in range(0, len(pictures), _PREPARED_TOGETHER):
            made = pixels(processor, list(pictures[start : start + _PREPARED_TOGETHER]))["pixel_values"][:, :, 0]
            grey.append(((made - shift) / scale).round().to(torch.uint8))
            bar.update(start + len(made))
    return Tiles(torch.cat(grey), scale, shift)


def image_tokens(model: Idefics3ForConditionalGeneration, tiles: Tiles, indices: Sequence[int]) -> torch.Tensor:
    """What the text model is given of pictures [pictures, tokens, width]."""
    found: torch.Tensor = model.get_image_features(tiles.pixel_values(indices)).pooler_output
    tokens: torch.Tensor = found.unflatten(0, (len(indices), -1)).flatten(1, 2)
    return tokens


def train_vlm(
    config: VisionReferenceConfig,
    spec: CorpusSpec,
    model: Idefics3ForConditionalGeneration,
    processor: Any,
    tiles: Tiles,
    read: Read,
) -> list[float]:
    """All phases, one after the other. Returns the loss every 50 steps."""
    losses: list[float] = []
    model.train()
    for phase, seed in zip(config.phases, config.text_seeds, strict=True):
        if phase.learns == "measures":
            losses += _train_measures(model, tiles, read.w_scores, phase, seed)
        else:
            chats = (finding_chats if phase.learns == "findings" else ask_chats)(
                replace(spec, seed=seed), read.evidence
            )
            losses += _train_text(model, processor, tiles, chats, phase, emphasis(OPTION_WEIGHT, phase, spec.task))
    model.eval()
    return losses


def _train_measures(
    model: Idefics3ForConditionalGeneration, tiles: Tiles, w_scores: np.ndarray, phase: PicturePhase, seed: int
) -> list[float]:
    """w-scores by a linear head on the mean of the image tokens, which the text model can form by looking at all."""
    graded = np.flatnonzero(~np.isnan(w_scores).all(axis=1))
    known = torch.from_numpy(~np.isnan(w_scores))
    scores = torch.from_numpy(np.nan_to_num((w_scores - np.nanmean(w_scores, axis=0)) / np.nanstd(w_scores, axis=0)))
    head = torch.nn.Linear(model.config.get_text_config().hidden_size, w_scores.shape[1])
    rng = np.random.default_rng(seed)

    def losses() -> Iterator[torch.Tensor]:
        while True:
            chosen = rng.choice(graded, min(phase.batch, len(graded)), replace=False)
            told = head(image_tokens(model, tiles, chosen.tolist()).mean(dim=1))
            yield (((told - scores[chosen]) ** 2) * known[chosen]).sum() / known[chosen].sum()

    seeing = [*model.model.vision_model.parameters(), *model.model.connector.parameters(), *head.parameters()]
    return optimise(seeing, losses(), phase, "vlm, measures")


def _train_text(
    model: Idefics3ForConditionalGeneration,
    processor: Any,
    tiles: Tiles,
    chats: Iterator[PictureChat],
    phase: PicturePhase,
    weigh: Emphasis,
) -> list[float]:
    def losses() -> Iterator[torch.Tensor]:
        while True:
            rows = list(islice(chats, phase.batch))
            batch = pad([encode_chat(row.messages, processor, weigh) for row in rows], processor.tokenizer.pad_token_id)
            seen = tiles.pixel_values([row.case for row in rows])
            logits = model(input_ids=batch.tokens, pixel_values=seen, use_cache=False).logits
            yield weighted_loss(logits, batch.targets, batch.weights)

    return optimise(model.parameters(), losses(), phase, f"vlm, {phase.learns}")


def encode_chat(messages: Sequence[dict[str, Any]], processor: Any, weigh: Emphasis) -> Example:
    """Tokens of a chat whose picture parts become their image tokens; the loss is on assistant turns."""
    return encode([_as_text(message, processor) for message in messages], processor.tokenizer, weigh)


def _as_text(message: dict[str, Any], processor: Any) -> Message:
    content = message["content"]
    if isinstance(content, str):
        return {"role": message["role"], "content": content}
    parts = [part["text"] if part["type"] == "text" else picture_text(processor) for part in content]
    return {"role": message["role"], "content": "".join(parts)}


def picture_text(processor: Any) -> str:
    """What Idefics3 writes in the place of a picture of PICTURE_PIXELS."""
    rows, columns = (side // VIEW_PIXELS for side in PICTURE_PIXELS)
    text: str = processor.replace_image_token({"rows": [[rows]], "cols": [[columns]]}, 0)
    return text
