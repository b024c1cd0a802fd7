"""The generation config of an exported student."""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig

from clinical_reasoner.distillation.export import greedy


def test_a_base_that_samples_becomes_a_greedy_student_that_can_be_saved(tmp_path: Path) -> None:
    base = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.95, top_k=20, eos_token_id=[1, 2], pad_token_id=0)
    greedy(base).save_pretrained(tmp_path)
    saved = GenerationConfig.from_pretrained(tmp_path)
    assert (saved.do_sample, saved.eos_token_id, saved.pad_token_id) == (False, [1, 2], 0)
    assert not saved.temperature or saved.temperature == 1
