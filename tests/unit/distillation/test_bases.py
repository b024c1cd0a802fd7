"""Base models: what is wrong with one is said before it is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, Idefics3Config

from clinical_reasoner.config.student import LoraConfig, StudentConfig
from clinical_reasoner.distillation.bases import (
    adapter_config,
    chat_text,
    check_context,
    check_same_tokens,
    is_vision_language,
    load_model,
    load_processor,
    read_picture,
    tokenizer_of,
)
from clinical_reasoner.errors import UserError
from clinical_reasoner.runs import RunFolder
from tests.unit.conftest import ROOT

STUDENT = ROOT / "platform/clinical_reasoner/reference/models/student"


def settings(base: str, lora: LoraConfig | None = None) -> StudentConfig:
    return StudentConfig(base=base, epochs=1, learning_rate=1e-3, lora=lora)


def test_a_text_base_is_a_tokenizer_with_its_chat_template() -> None:
    processor = load_processor(str(STUDENT), pictures=False)
    assert processor.chat_template == (STUDENT / "chat_template.jinja").read_text()
    assert tokenizer_of(processor) is processor


def test_tokenizer_of_a_processor() -> None:
    class Processor:
        tokenizer = "its tokenizer"

    assert tokenizer_of(Processor()) == "its tokenizer"


def test_a_base_without_chat_template_is_refused(tmp_path: Path) -> None:
    shutil.copytree(STUDENT, tmp_path / "base")
    (tmp_path / "base/chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"student base '.*base' has no chat template: take its instruction-tuned"):
        load_processor(str(tmp_path / "base"), pictures=False)


def test_a_text_base_cannot_see_pictures() -> None:
    with pytest.raises(
        UserError, match=r"sees no pictures: for inputs of `image` or `both` give a vision-language model"
    ):
        load_processor(str(STUDENT), pictures=True)


def test_a_model_with_a_vision_tower_is_known_by_its_config(tmp_path: Path) -> None:
    assert not is_vision_language(str(STUDENT))
    Idefics3Config().save_pretrained(tmp_path)
    assert is_vision_language(str(tmp_path))


def test_chat_is_that_of_the_models_own_template() -> None:
    processor = load_processor(str(STUDENT), pictures=False)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Well?"}]
    assert chat_text(processor, turns) == "<|system|>Be brief.<|end|><|user|>Well?<|end|>"
    assert chat_text(processor, turns, generation=True) == f"{chat_text(processor, turns)}<|assistant|>"


def test_models_with_other_tokens_are_told_apart(tmp_path: Path) -> None:
    check_same_tokens(str(STUDENT), str(STUDENT))
    shutil.copytree(STUDENT, tmp_path / "more")
    more = AutoTokenizer.from_pretrained(STUDENT)
    more.add_tokens(["hippocampal atrophy", "vascular disease"])
    more.save_pretrained(tmp_path / "more")
    check_same_tokens(str(STUDENT), str(tmp_path / "more"))  # it never sees those
    with pytest.raises(UserError, match=r"token_distillation: 2 of the 785 tokens of teacher '.*more' are others in"):
        check_same_tokens(str(tmp_path / "more"), str(STUDENT))


def test_context_of_a_base(tmp_path: Path) -> None:
    check_context(str(STUDENT), 2048)
    with pytest.raises(UserError, match="reads 2048 tokens; max_length=2049 is more than that"):
        check_context(str(STUDENT), 2049)
    shutil.copytree(STUDENT, tmp_path / "base")
    known = json.loads((STUDENT / "config.json").read_text())
    (tmp_path / "base/config.json").write_text(json.dumps(known | {"max_position_embeddings": 512}))
    with pytest.raises(UserError, match="reads 512 tokens; max_length=1024"):
        check_context(str(tmp_path / "base"), 1024)


def test_all_weights_are_trained_in_float32() -> None:
    model = load_model(settings(str(STUDENT)), str(STUDENT))
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}
    assert all(weights.requires_grad for weights in model.parameters())
    assert adapter_config(None) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it can be loaded")
def test_four_bits_need_cuda() -> None:
    with pytest.raises(UserError, match=r"lora\.quantize_base needs CUDA"):
        load_model(settings(str(STUDENT), LoraConfig(quantize_base=True)), str(STUDENT))


@pytest.mark.parametrize("modules", ["all-linear", ("q_proj", "v_proj")])
def test_adapters_are_those_of_the_config(modules: str | tuple[str, ...]) -> None:
    from peft import get_peft_model

    lora = LoraConfig(rank=4, alpha=12, dropout=0.1, target_modules=modules)
    adapter = adapter_config(lora)
    assert (adapter.r, adapter.lora_alpha, adapter.lora_dropout) == (4, 12, 0.1)
    model = get_peft_model(load_model(settings(str(STUDENT), lora), str(STUDENT)), adapter)
    trained = [name for name, weights in model.named_parameters() if weights.requires_grad]
    all_linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    layers = {name.split(".lora_")[0].split(".")[-1] for name in trained}
    assert layers == (all_linear if modules == "all-linear" else set(modules))


def test_pictures_are_in_colour(tmp_path: Path) -> None:
    Image.new("L", (4, 3), 9).save(tmp_path / "grey.png")
    picture = read_picture(RunFolder(str(tmp_path)), "grey.png")
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (4, 3), (9, 9, 9))
