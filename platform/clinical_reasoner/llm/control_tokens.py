"""Control tokens of a tokenizer: texts such as `<|im_end|>` that end a turn, and how they are kept out of prompts.

A tokenizer makes one control token of such a text wherever it stands, so that words about a patient could end the turn
that they stand in and begin another.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from clinical_reasoner.storage import RunError, read_file

_TOKENIZER = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_USUAL_START, _USUAL_REST = "<", r"\|[^\s<>|]{1,64}\|>"
"""The form that most families share, `<|...|>`, whether or not this tokenizer knows the token."""
_MARKS = frozenset("<>[]|")
"""Of these at least one is in a token that was added for control, though it is not called special: `<think>`."""
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def neutralize(text: str, tokens: tuple[str, ...]) -> str:
    """The text with a space after the first character of every control token in it, so that it is read as plain text.

    A text without any is returned as it is. One that holds them in another form of the same characters (Unicode NFKC),
    which some tokenizers fold first, is folded here too.
    """
    pattern = _pattern(tokens)
    folded = unicodedata.normalize("NFKC", text)
    if pattern.search(folded):
        text = folded
    elif folded == text:
        return text
    # Where one was broken, the characters around it may be another.
    for _ in range(len(tokens) + 2):
        broken = pattern.sub(r"\g<0> ", text)
        if broken == text:
            break
        text = broken
    return text


def control_tokens(model: str) -> tuple[str, ...]:
    """Of the tokenizer of a model folder, an `s3://` address or a hub name; sorted.

    Raises RunError where it cannot be read.
    """
    remote = model.startswith("s3://")
    if not remote and not Path(model).is_dir():
        return _tidy(_from_transformers(model))
    base = model.rstrip("/")
    if not remote and not (Path(model) / _TOKENIZER).is_file():
        return _tidy(_from_transformers(model))  # one of the older forms, such as `tokenizer.model`
    vocabulary = _read_json(f"{base}/{_TOKENIZER}")
    settings = _read_json(f"{base}/{_SETTINGS}") if remote or (Path(model) / _SETTINGS).is_file() else {}
    return _tidy((*_added(vocabulary), *_named(settings)))


@lru_cache(maxsize=8)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Matches the first character of a token. What follows is looked up as in a tree, one character at a time, so that
    a text takes as long for hundreds of tokens as for one."""
    rests: dict[str, list[str]] = {_USUAL_START: []}
    for token in filter(_breakable, tokens):
        rests.setdefault(token[0], []).append(token[1:])
    firsts = []
    for first, rest in sorted(rests.items()):
        others = [_tree(rest)] if rest else []
        usual = [_USUAL_REST] if first == _USUAL_START else []
        firsts.append(f"{re.escape(first)}(?={'|'.join((*others, *usual))})")
    return re.compile("|".join(firsts))


def _tree(texts: Iterable[str]) -> str:
    """A pattern for a text that begins with one of these, none of which is empty."""
    branches: dict[str, list[str]] = {}
    for text in texts:
        branches.setdefault(text[0], []).append(text[1:])
    # Where one ends, longer ones make no difference.
    parts = [re.escape(first) + ("" if "" in rest else _tree(rest)) for first, rest in sorted(branches.items())]
    return parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"


def _breakable(token: str) -> bool:
    return len(token) > 1 and not token[1].isspace() and bool(token.strip())


def _tidy(tokens: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({token for token in tokens if _breakable(token)}))


def _added(vocabulary: Any) -> Iterator[str]:
    """Of tokenizer.json."""
    for token in vocabulary.get("added_tokens", ()):
        if token.get("special") or _MARKS.intersection(token["content"]):
            yield token["content"]


def _named(settings: Any) -> Iterator[str]:
    """Of tokenizer_config.json."""
    extra = settings.get("extra_special_tokens") or ()
    values = [*(extra.values() if isinstance(extra, dict) else extra), *(settings.get(name) for name in _NAMED)]
    values += settings.get("additional_special_tokens") or ()
    for token in settings.get("added_tokens_decoder", {}).values():
        values += [token] if token.get("special") or _MARKS.intersection(token["content"]) else []
    for value in values:
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            yield text


def _read_json(path: str) -> Any:
    try:
        content = json.loads(read_file(path))
    except ValueError as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path}: not readable as JSON; its control tokens are needed") from error
    if not isinstance(content, dict):
        raise RunError(f"{path}: expected a JSON object")
    return content


def _from_transformers(model: str) -> Iterator[str]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise RunError(
            f"{model}: its tokenizer cannot be read ({type(error).__name__}), which is needed to keep control tokens "
            "out of what is said about patients; give a folder or a hub name that this machine can reach"
        ) from error
    yield from tokenizer.all_special_tokens
    for token in tokenizer.added_tokens_decoder.values():
        if token.special or _MARKS.intersection(token.content):
            yield token.content
