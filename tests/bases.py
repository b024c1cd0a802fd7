"""Small bases with random weights, under the tokenizer of the project's own models: no download is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "platform" / "clinical_reasoner" / "reference" / "models" / "student"
WIDTH = 64


def small_t5(folder: Path) -> str:
    """An encoder-decoder base below `folder`."""
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=16,
        d_ff=2 * WIDTH,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.decoder_start_token_id = tokenizer.pad_token_id
    return _written(folder / "t5", T5ForConditionalGeneration(config), tokenizer)


def small_bert(folder: Path, positions: int = 512) -> str:
    """An encoder base below `folder`, as pre-training leaves it: without a head for labels."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(REFERENCE)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=positions,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _written(folder / "bert", BertForMaskedLM(config), tokenizer)


def _written(folder: Path, model: Any, tokenizer: Any) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
