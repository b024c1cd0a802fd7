"""Export: a Hugging Face folder that transformers and vLLM load as it is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from clinical_reasoner.cluster import local_or_name
from clinical_reasoner.config.student import StudentConfig
from clinical_reasoner.distillation.bases import load_processor, model_class
from clinical_reasoner.runs import RunFolder

CARD, CALIBRATION = "README.md", "calibration.json"
"""Names in the folder of a model."""


def export_student(checkpoint: Any, settings: StudentConfig, run: RunFolder, name: str, card: str) -> None:
    """Write bf16 weights, adapters merged, with tokenizer or processor, chat template, generation config and model card
    to `name` below the run folder."""
    from transformers.utils.logging import disable_progress_bar

    from clinical_reasoner.distillation.worker import CHECKPOINT

    disable_progress_bar()  # of reading and writing one small file
    with checkpoint.as_directory() as folder, tempfile.TemporaryDirectory() as output:
        trained = str(Path(folder, CHECKPOINT))
        model = merged_model(trained, settings)
        model.generation_config.do_sample = False
        model.save_pretrained(output)
        load_processor(settings.base, settings.inputs != "text").save_pretrained(output)
        Path(output, CARD).write_text(card, encoding="utf-8")
        run.put_folder(output, name)


def merged_model(trained: str, settings: StudentConfig, dtype: str = "bfloat16") -> Any:
    """The model of a checkpoint's folder; with LoRA the base with its adapters merged in float32."""
    kind = model_class(settings.base)
    if settings.lora is None:
        return kind.from_pretrained(trained, dtype=dtype)
    import torch
    from peft import PeftModel

    base = kind.from_pretrained(local_or_name(settings.base), dtype="float32")
    merged = PeftModel.from_pretrained(base, trained).merge_and_unload()
    return merged.to(getattr(torch, dtype))
