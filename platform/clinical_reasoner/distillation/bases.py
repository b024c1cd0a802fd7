"""Base models: what kind each is, how it is loaded for training, and what is wrong with one before it is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from clinical_reasoner.cluster import local_or_name
from clinical_reasoner.config.student import LoraConfig, StudentConfig
from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.prompting import Message
from clinical_reasoner.runs import RunFolder


def load_processor(base: str, pictures: bool) -> Any:
    """The tokenizer, or the processor of a vision-language model, whose `tokenizer` it then has. Raises UserError where
    there is no chat template, and where a student of `pictures` could not see them."""
    from transformers import AutoProcessor, AutoTokenizer

    source, sees = local_or_name(base), is_vision_language(base)
    if pictures and not sees:
        raise UserError(
            f"student base {base!r} sees no pictures: for inputs of `image` or `both` give a vision-language model, "
            "e.g. HuggingFaceTB/SmolVLM-256M-Instruct"
        )
    processor = (AutoProcessor if sees else AutoTokenizer).from_pretrained(source)
    if not processor.chat_template:
        raise UserError(
            f"student base {base!r} has no chat template: take its instruction-tuned sister, or put a "
            "chat_template.jinja into its folder"
        )
    return processor


def is_vision_language(base: str) -> bool:
    """Whether a model has a vision tower beside its language model."""
    from transformers import AutoConfig

    return hasattr(AutoConfig.from_pretrained(local_or_name(base)), "vision_config")


def model_class(base: str) -> Any:
    """The class of transformers that loads it, also for a vision-language model that is given texts alone."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if is_vision_language(base) else AutoModelForCausalLM


def tokenizer_of(processor: Any) -> Any:
    return getattr(processor, "tokenizer", processor)


def read_picture(run: RunFolder, name: str) -> Image.Image:
    """A picture below the run folder, in colour, as image processors take it."""
    return Image.open(io.BytesIO(run.read_bytes(name))).convert("RGB")


def chat_text(processor: Any, messages: Sequence[Message], picture: Any = None, generation: bool = False) -> str:
    """A chat under the model's own template, with the place of a picture (PIL) before the first user's words;
    `generation`: up to where the answer begins."""
    chat: Any = list(messages)
    if tokenizer_of(processor) is not processor:
        from trl.data_utils import prepare_multimodal_messages

        chat = prepare_multimodal_messages(chat, images=[] if picture is None else [picture])
    text: str = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=generation)
    return text


def picture_tokens(processor: Any, picture: Any) -> int:
    """Tokens that a picture (PIL) takes in a prompt, with what stands around it."""
    turn = [{"role": "user", "content": "?"}]
    shown, alone = chat_text(processor, turn, picture), chat_text(processor, turn)
    seen = processor(text=[shown], images=[[picture]], add_special_tokens=False)["input_ids"][0]
    return len(seen) - len(tokenizer_of(processor)(alone, add_special_tokens=False)["input_ids"])


def check_base(settings: StudentConfig, teacher: str | None) -> None:
    """Raises UserError for a base with which a training would fail; `teacher`: whose tokens it must have."""
    check_context(settings.base, settings.max_length)
    load_processor(settings.base, settings.inputs != "text")
    if teacher is not None:
        check_same_tokens(teacher, settings.base)


def check_context(base: str, max_length: int) -> None:
    """Raises UserError where the base reads fewer tokens than `student.max_length`."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(local_or_name(base)).get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and context < max_length:
        raise UserError(f"student base {base!r} reads {context} tokens; max_length={max_length} is more than that")


def check_same_tokens(teacher: str, base: str) -> None:
    """Raises UserError where teacher and student base have other tokens: the teacher's probabilities of its tokens then
    say nothing about the student's."""
    from transformers import AutoTokenizer

    of_teacher, of_base = (AutoTokenizer.from_pretrained(local_or_name(one)).get_vocab() for one in (teacher, base))
    differing = {token for token, number in of_teacher.items() if of_base.get(token) != number}
    if differing:
        raise UserError(
            f"token_distillation: {len(differing)} of the {len(of_teacher)} tokens of teacher {teacher!r} are others "
            f"in student base {base!r}; take two models of one family, or soft_labels, which need no common tokens"
        )


def load_model(settings: StudentConfig, base: str) -> Any:
    """The base in float32, or with `lora.quantize_base` in 4 bits. Raises UserError for 4 bits without CUDA."""
    import torch
    from transformers import BitsAndBytesConfig

    kind = model_class(base)
    if settings.lora is None or not settings.lora.quantize_base:
        return kind.from_pretrained(base, dtype=torch.float32)
    if not torch.cuda.is_available():
        raise UserError("lora.quantize_base needs CUDA, which this worker has not; set it to false")
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    return kind.from_pretrained(base, quantization_config=four_bits, device_map={"": torch.cuda.current_device()})


def adapter_config(lora: LoraConfig | None, task_type: str = "CAUSAL_LM") -> Any:
    """PEFT's configuration; None where all weights are trained."""
    if lora is None:
        return None
    from peft import LoraConfig as Adapter

    modules = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return Adapter(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=modules,
        task_type=task_type,
    )
