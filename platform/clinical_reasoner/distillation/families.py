"""Students that are no decoders (T5 and BERT, and their like): how a base is told, loaded, and fed with examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clinical_reasoner.cluster import local_or_name
from clinical_reasoner.config.student import Family, StudentConfig
from clinical_reasoner.distillation.bases import load_processor
from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.plain import context_of
from clinical_reasoner.llm.prompting import plain_text
from clinical_reasoner.task import DiagnosisTask

Row = dict[str, Any]
KINDS: dict[Family, str] = {
    "decoder": "a causal language model, which writes on after its prompt",
    "encoder_decoder": "an encoder-decoder model such as T5",
    "encoder": "an encoder such as BERT",
}
ADAPTED: dict[Family, str] = {"encoder_decoder": "SEQ_2_SEQ_LM", "encoder": "SEQ_CLS"}
"""PEFT's name for what is trained."""


def family_of(config: Any) -> Family:
    """Of a base, from its transformers configuration: an encoder is what has learnt to fill in masked words."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    if getattr(config, "is_encoder_decoder", False):
        return "encoder_decoder"
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    return "encoder" if masked else "decoder"


def check_family(settings: StudentConfig) -> None:
    """Raises UserError where the base is of another family than the configured one, or reads too little."""
    from transformers import AutoConfig

    if settings.inputs != "text":
        return
    config = AutoConfig.from_pretrained(local_or_name(settings.base))
    found = family_of(config)
    if found != settings.family:
        architectures = ", ".join(getattr(config, "architectures", None) or [type(config).__name__])
        raise UserError(
            f"student.family={settings.family!r}, but base {settings.base!r} ({architectures}) is {KINDS[found]}; set "
            f"student.family={found}, or take as base {KINDS[settings.family]}"
        )
    if settings.family != "decoder":
        _check_plain(settings, config, student_processor(settings.base, settings))


def _check_plain(settings: StudentConfig, config: Any, tokenizer: Any) -> None:
    needed = ("pad_token", "eos_token") if settings.family == "encoder_decoder" else ("pad_token",)
    missing = [name for name in needed if getattr(tokenizer, name) is None]
    if missing:
        raise UserError(f"student base {settings.base!r} has no {missing[0]}; add it to its tokenizer_config.json")
    if settings.family == "encoder":
        context = context_of(config, tokenizer)
        if context < settings.max_length:
            raise UserError(
                f"student base {settings.base!r} reads {context} tokens; set student.max_length={context} or less"
            )


def student_processor(base: str, settings: StudentConfig) -> Any:
    """As `load_processor`; of other families than decoders the tokenizer, which keeps line breaks: answers have several
    lines, and T5's own tokenizer makes a blank of each break."""
    from transformers import AddedToken, AutoTokenizer

    if settings.family == "decoder":
        return load_processor(base, settings.inputs != "text")
    tokenizer = AutoTokenizer.from_pretrained(local_or_name(base))
    if settings.family == "encoder_decoder":
        ids = tokenizer("a\nb", add_special_tokens=False)["input_ids"]
        if "\n" not in tokenizer.decode(ids):
            tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    return tokenizer


def load_plain_base(settings: StudentConfig, base: str, task: DiagnosisTask, tokenizer: Any) -> Any:
    """The base in float32. A classifier has the task's labels; an encoder-decoder model generates greedily, whatever
    its own defaults are, and has a place for each token of the tokenizer."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, GenerationConfig

    if settings.family == "encoder":
        return AutoModelForSequenceClassification.from_pretrained(
            base,
            dtype=torch.float32,
            num_labels=len(task.labels),
            id2label=dict(enumerate(task.label_names)),
            label2id={name: number for number, name in enumerate(task.label_names)},
            problem_type="single_label_classification",
            ignore_mismatched_sizes=True,  # a base with a head for other labels gets a new one
        )
    model = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32)
    start = model.generation_config.decoder_start_token_id
    model.generation_config = GenerationConfig(
        decoder_start_token_id=model.config.decoder_start_token_id if start is None else start,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        if settings.lora is not None:
            raise UserError(
                f"student base {base!r} has no place for a line break among its tokens, which LoRA would not train; "
                "set student.lora=null"
            )
        model.resize_token_embeddings(len(tokenizer))
    return model


def encode_examples(rows: Sequence[Row], family: Family, tokenizer: Any, task: DiagnosisTask) -> list[Row]:
    """`input_ids` of the prompt, `labels` (tokens of the answer and the end token, or the class) and what the loss
    reads, of rows of EXAMPLES."""
    places = {name: number for number, name in enumerate(task.label_names)}
    return [
        {
            **{name: row.get(name) for name in ("ask", "weight", "soft_label", "length")},
            "input_ids": tokenizer(plain_text(row["prompt"]))["input_ids"],
            "labels": [places[row["label"]]] if family == "encoder" else answer_tokens(row["completion"], tokenizer),
        }
        for row in rows
    ]


def answer_tokens(completion: Sequence[Row], tokenizer: Any) -> list[int]:
    """What the decoder shall write, with the end token and no other special one."""
    ids = tokenizer(text_target=plain_text(completion), add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id]


def count_plain_tokens(rows: Sequence[Row], family: Family, tokenizer: Any) -> list[int]:
    """Length of each example: tokens of the prompt, and of the answer where it is written."""
    return [
        len(tokenizer(plain_text(row["prompt"]))["input_ids"])
        + (0 if family == "encoder" else len(answer_tokens(row["completion"], tokenizer)))
        for row in rows
    ]
