"""Export: a Hugging Face folder that transformers loads as it is, and vLLM where it is a decoder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from clinical_reasoner.cluster import local_or_name
from clinical_reasoner.config.student import StudentConfig
from clinical_reasoner.distillation.bases import model_class
from clinical_reasoner.distillation.families import load_plain_base, student_processor
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask

CARD, CALIBRATION = "README.md", "calibration.json"
"""Names in the folder of a model."""


def export_student(
    checkpoint: Any, settings: StudentConfig, task: DiagnosisTask, run: RunFolder, name: str, card: str
) -> None:
    """Write bf16 weights, adapters merged, with tokenizer or processor, chat template, generation config and model card
    to `name` below the run folder."""
    from transformers.utils.logging import disable_progress_bar

    from clinical_reasoner.distillation.worker import CHECKPOINT

    disable_progress_bar()  # of reading and writing one small file
    with checkpoint.as_directory() as folder, tempfile.TemporaryDirectory() as output:
        trained = str(Path(folder, CHECKPOINT))
        processor = student_processor(settings.base, settings)
        model = merged_model(trained, settings, task, processor)
        if settings.family != "encoder":
            model.generation_config.do_sample = False
        model.save_pretrained(output)
        processor.save_pretrained(output)
        Path(output, CARD).write_text(card, encoding="utf-8")
        run.put_folder(output, name)


def merged_model(
    trained: str, settings: StudentConfig, task: DiagnosisTask, processor: Any, dtype: str = "bfloat16"
) -> Any:
    """The model of a checkpoint's folder; with LoRA the base with its adapters merged in float32."""
    import torch

    if settings.lora is None:
        return _load(trained, settings, task, processor, getattr(torch, dtype))
    from peft import PeftModel

    base = _load(local_or_name(settings.base), settings, task, processor, torch.float32)
    return PeftModel.from_pretrained(base, trained).merge_and_unload().to(getattr(torch, dtype))


def _load(folder: str, settings: StudentConfig, task: DiagnosisTask, processor: Any, dtype: Any) -> Any:
    """Without adapters."""
    if settings.family != "decoder":
        return load_plain_base(settings, folder, task, processor).to(dtype)
    return model_class(settings.base).from_pretrained(folder, dtype=dtype)
