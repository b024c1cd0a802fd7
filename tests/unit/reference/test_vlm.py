"""The reference vision-language model: what is built from a small recipe, and the committed folder."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.reference import VisionReferenceConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.imaging.slices import save_png
from clinical_reasoner.imaging.views import PICTURE_PIXELS
from clinical_reasoner.llm.prompting import Message, with_picture
from clinical_reasoner.reference.picture_text import picture_question
from clinical_reasoner.reference.pictures import draw_phantoms
from clinical_reasoner.reference.training import IGNORED, Emphasis, pad
from clinical_reasoner.reference.vlm import new_processor, new_vlm, pixels
from clinical_reasoner.reference.vlm_build import build_vlm, specs
from clinical_reasoner.reference.vlm_figures import answers
from clinical_reasoner.reference.vlm_training import encode_chat, image_tokens, prepare

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "configs/reference/vlm.yaml"
COMMITTED = ROOT / "platform/clinical_reasoner/reference/models/vlm"
STUDENT = ROOT / "platform/clinical_reasoner/reference/models/student"
SMALL = [
    "phantoms=70",
    "fewest_controls=10",
    "evaluation_phantoms=2",
    "probe_phantoms=30",
    *(f"phases.{number}.{key}={value}" for number in range(3) for key, value in (("steps", 2), ("batch", 3))),
]
CHAT: list[Message] = [
    {"role": "system", "content": "You are an expert."},
    {"role": "user", "content": "Brain MRI:"},
]


@pytest.fixture(scope="module", autouse=True)
def _at_root() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, PICTURE_PIXELS, dtype=np.uint8)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vlm") / "model"
    config = load_config(VisionReferenceConfig, RECIPE, [f"output={folder}", *SMALL])
    assert build_vlm(config) == folder
    return folder


@pytest.mark.parametrize("folder", ["built", "committed"])
def test_folder_loads_and_writes_about_a_picture(
    folder: str, picture: np.ndarray, request: pytest.FixtureRequest
) -> None:
    path = COMMITTED if folder == "committed" else request.getfixturevalue("built")
    model: Any = AutoModelForImageTextToText.from_pretrained(path, dtype=torch.float32)
    processor: Any = AutoProcessor.from_pretrained(path)
    text = processor.apply_chat_template(with_picture(CHAT), tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>You are an expert.<|end|><|user|><image>Brain MRI:<|end|><|assistant|>"
    inputs = processor(text=[text], images=[[Image.fromarray(picture)]], return_tensors="pt", add_special_tokens=False)
    assert inputs["pixel_values"].shape == (1, 13, 3, 96, 96)
    tokens = inputs["input_ids"].shape[1]
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 13 * processor.image_seq_len
    inputs.pop("token_type_ids", None)
    written = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert tokens < written.shape[1] <= tokens + 6
    assert torch.isfinite(model(**inputs).logits).all()


def test_folder_has_weights_in_bf16_and_a_card(built: Path) -> None:
    assert {"config.json", "model.safetensors", "processor_config.json", "README.md"} <= {
        f.name for f in built.iterdir()
    }
    config = json.loads((built / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16" and config["architectures"] == ["Idefics3ForConditionalGeneration"]
    card = (built / "README.md").read_text(encoding="utf-8")
    assert "stand-in" in card and "phantoms: 70" in card and "Chance: 0.500" in card


def test_committed_folder_is_small_and_made_from_the_recipe() -> None:
    assert sum(file.stat().st_size for file in COMMITTED.iterdir()) <= 12e6
    card = (COMMITTED / "README.md").read_text(encoding="utf-8")
    recipe = load_config(VisionReferenceConfig, RECIPE)
    assert f"phantoms of the seed {recipe.seed}" in card
    assert f"phantoms: {recipe.phantoms}\n" in card
    assert all(f"steps: {phase.steps}\n" in card for phase in recipe.phases)


def test_text_without_a_picture_is_that_of_the_base() -> None:
    chat: list[Message] = [*CHAT, {"role": "assistant", "content": "Severe hippocampal atrophy at 74."}]
    base, own = (AutoTokenizer.from_pretrained(folder) for folder in (STUDENT, COMMITTED))
    plain = base.apply_chat_template(chat, tokenize=True, return_dict=False)
    assert own.apply_chat_template(chat, tokenize=True, return_dict=False) == plain


def test_training_reads_a_chat_as_the_processor_writes_it(picture: np.ndarray) -> None:
    config = load_config(VisionReferenceConfig, RECIPE)
    processor: Any = new_processor(config.base, config.vision)
    chat = [*with_picture(CHAT), {"role": "assistant", "content": "No atrophy."}]
    example = encode_chat(chat, processor, Emphasis(1.0, 1.0, re.compile("No")))
    text = processor.apply_chat_template(chat, tokenize=False)
    made = processor(text=[text], images=[[Image.fromarray(picture)]], return_tensors="pt", add_special_tokens=False)
    assert made["input_ids"][0].tolist() == example.tokens
    said = [token for token, target in zip(example.tokens, example.targets, strict=True) if target != IGNORED]
    assert processor.tokenizer.decode(said) == "No atrophy.<|end|>"
    batch = pad([example, example], processor.tokenizer.pad_token_id)
    tiles = prepare(processor, np.stack([picture, 255 - picture]))
    model = new_vlm(config, processor).eval()
    logits = model(input_ids=batch.tokens, pixel_values=tiles.pixel_values([0, 1])).logits
    expected = model(input_ids=made["input_ids"], pixel_values=made["pixel_values"]).logits
    torch.testing.assert_close(logits[:1], expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits[0, -1], logits[1, -1])
    assert image_tokens(model, tiles, [0, 1]).shape == (2, 13 * processor.image_seq_len, 160)


def test_tiles_are_what_the_processor_makes(picture: np.ndarray) -> None:
    config = load_config(VisionReferenceConfig, RECIPE)
    processor: Any = new_processor(config.base, config.vision)
    made = pixels(processor, [picture])["pixel_values"]
    torch.testing.assert_close(prepare(processor, picture[None]).pixel_values([0]), made, atol=1e-5, rtol=0)
    content = io.BytesIO()
    save_png(picture, content)
    with Image.open(content) as opened:
        again = processor.image_processor([[opened]], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(again, made)


def test_weights_that_would_be_too_large() -> None:
    config = load_config(VisionReferenceConfig, RECIPE, ["max_megabytes=3"])
    with pytest.raises(UserError, match=r"^\d\.\d MB of weights, more than max_megabytes=3;"):
        new_vlm(config, new_processor(config.base, config.vision))


def test_text_model_starts_from_the_base() -> None:
    config = load_config(VisionReferenceConfig, RECIPE)
    processor: Any = new_processor(config.base, config.vision)
    model: Any = new_vlm(config, processor).eval()
    text: Any = AutoModelForCausalLM.from_pretrained(config.base, dtype=torch.float32).eval()
    tokens = processor.tokenizer("The patient is 74 years old.", return_tensors="pt")["input_ids"]
    torch.testing.assert_close(
        model(input_ids=tokens).logits[..., : text.config.vocab_size],
        text(input_ids=tokens).logits,
        atol=1e-4,
        rtol=1e-4,
    )


def test_committed_model_says_different_findings_of_different_heads() -> None:
    config = load_config(VisionReferenceConfig, RECIPE)
    phantom_spec, text_spec = specs(config)
    phantoms = draw_phantoms(phantom_spec, 31, 12)
    model: Any = AutoModelForImageTextToText.from_pretrained(COMMITTED, dtype=torch.float32)
    processor: Any = AutoProcessor.from_pretrained(COMMITTED)
    texts = answers(model, processor, text_spec, prepare(processor, phantoms.pictures), range(12))
    assert len(set(texts)) > 6
    assert all("hippocampal atrophy" in text for text in texts)
    assert picture_question(text_spec)[-1]["content"][1]["text"] == "Brain MRI:"
