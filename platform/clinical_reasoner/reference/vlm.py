"""A small Idefics3 (SmolVLM's architecture): a vision tower of its own on the text model and tokenizer of a base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlamaForCausalLM,
)
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from clinical_reasoner.config.reference import VisionReferenceConfig, VisionTower
from clinical_reasoner.errors import UserError
from clinical_reasoner.imaging.views import PICTURE_PIXELS, VIEW_PIXELS

SIDE = max(PICTURE_PIXELS) // VIEW_PIXELS
"""Tiles along the longer side of a picture; a tile is one view."""
SPECIAL = (
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row + 1}_col_{column + 1}>" for row in range(SIDE) for column in range(SIDE)),
)
"""What Idefics3 writes around the tiles of a picture, which is made SIDE tiles long whatever it was."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>{% endif %}"
    "{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""As that of the text models; a part of a content that is no text is a picture."""


def new_processor(base: str, vision: VisionTower) -> Idefics3Processor:
    """The base's tokenizer with SPECIAL and CHAT_TEMPLATE, and pictures split into tiles of one view. Tiles are always
    made: without any, engines on the CPU fail."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)}, replace_extra_special_tokens=False)
    pictures = Idefics3ImageProcessorPil(
        do_image_splitting=True,
        size={"longest_edge": SIDE * VIEW_PIXELS},
        max_image_size={"longest_edge": VIEW_PIXELS},
    )
    return Idefics3Processor(pictures, tokenizer, image_seq_len=tokens_per_tile(vision), chat_template=CHAT_TEMPLATE)


def tokens_per_tile(vision: VisionTower) -> int:
    return (VIEW_PIXELS // vision.patch // vision.scale_factor) ** 2


def new_vlm(config: VisionReferenceConfig, processor: Any) -> Idefics3ForConditionalGeneration:
    """The base's text model with rows for new tokens, random weights elsewhere. Raises UserError as `check_size`."""
    base = LlamaForCausalLM.from_pretrained(config.base, dtype=torch.float32)
    text = base.config.to_dict() | {"vocab_size": len(processor.tokenizer)}
    text.pop("dtype", None)
    vision = Idefics3VisionConfig(
        hidden_size=config.vision.width,
        intermediate_size=config.vision.mlp_width,
        num_hidden_layers=config.vision.layers,
        num_attention_heads=config.vision.heads,
        image_size=VIEW_PIXELS,
        patch_size=config.vision.patch,
    )
    model = Idefics3ForConditionalGeneration(
        Idefics3Config(
            text_config=text,
            vision_config=vision,
            image_token_id=processor.image_token_id,
            scale_factor=config.vision.scale_factor,
            pad_token_id=processor.tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
    )
    check_size(model, config)
    known = base.model.state_dict()
    embedded = known.pop("embed_tokens.weight")
    model.model.text_model.load_state_dict(known, strict=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[: len(embedded)] = embedded
    return model


def check_size(model: Idefics3ForConditionalGeneration, config: VisionReferenceConfig) -> None:
    """Raises UserError when the weights in bf16, as they are saved, take more than `max_megabytes`."""
    megabytes = torch.bfloat16.itemsize * sum(tensor.numel() for tensor in model.parameters()) / 1e6
    if megabytes > config.max_megabytes:
        raise UserError(f"{megabytes:.1f} MB of weights, more than max_megabytes={config.max_megabytes:g}; make fewer")


def pixels(processor: Any, pictures: list[np.ndarray]) -> dict[str, torch.Tensor]:
    """Grey pictures (uint8, PICTURE_PIXELS) as the model takes them."""
    images = [[Image.fromarray(picture)] for picture in pictures]
    made: dict[str, torch.Tensor] = dict(processor.image_processor(images, return_tensors="pt"))
    return made


def save_vlm(model: Idefics3ForConditionalGeneration, processor: Any, output: str) -> Path:
    """Weights in bf16, processor with tokenizer and chat template, greedy generation config."""
    folder = Path(output)
    model.bfloat16()
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
