"""Encoder-decoder models and classifiers, which vLLM does not run: transformers under Ray Data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.llm.answers import TextOfToken, option_place
from clinical_reasoner.llm.generation import TOO_LONG, Generation, Model, Row, Steps, failed
from clinical_reasoner.llm.prompting import plain_text, render_answer
from clinical_reasoner.task import DiagnosisTask


def ask_plainly(rows: Any, steps: Steps) -> Any:
    """The dataset of finished rows, with a model in each of the engine's replicas."""
    from ray.data import ActorPoolStrategy

    engine = steps.model.engine
    return rows.map_batches(
        PlainAsker,
        fn_constructor_args=(steps,),
        batch_format="pyarrow",
        batch_size=engine.batches()[0],
        compute=ActorPoolStrategy(size=engine.replicas),
        num_cpus=engine.cpus,
        **({"num_gpus": engine.gpus} if engine.gpus else {}),
    )


class PlainAsker:
    """Callable class for Ray Data: rows of asks -> settled rows."""

    def __init__(self, steps: Steps) -> None:
        from transformers import AutoTokenizer

        self._steps, model = steps, steps.model
        self._tokenizer = AutoTokenizer.from_pretrained(model.source)
        self._model = load_plain(model)
        self._context = min(model.engine.max_model_len, context_of(self._model.config, self._tokenizer))

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        try:
            generations = self._answers(rows)
        except RuntimeError as error:  # out of memory, too; its message stays here
            generations = [failed(type(error).__name__)] * len(rows)
        settled = zip(rows, generations, strict=True)
        return pa.Table.from_pylist([self._steps.settle(row, generation) for row, generation in settled])

    def _answers(self, rows: list[Row]) -> list[Generation]:
        model, prompts = self._steps.model, [plain_text(self._steps.render(row)) for row in rows]
        if model.task is not None and model.family == "encoder":
            return classify(self._model, self._tokenizer, prompts, self._context, model.task)
        candidates = model.logprobs if any(ASK_KINDS[row["ask"]].gives_label for row in rows) else 0
        if model.sampling.temperature == 0:
            return self._written(prompts, candidates)
        # One by one: transformers has a single generator of random numbers, and each row a seed of its own.
        seeds = (row["seed"] for row in rows)
        return [self._written([prompt], candidates, seed)[0] for prompt, seed in zip(prompts, seeds, strict=True)]

    def _written(self, prompts: list[str], candidates: int, seed: int | None = None) -> list[Generation]:
        import torch

        sampling = self._steps.model.sampling
        drawn: dict[str, Any] = {}
        if seed is not None:
            torch.manual_seed(seed)
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        return write(
            self._model, self._tokenizer, prompts, self._context, sampling.max_tokens, candidates=candidates, **drawn
        )


def load_plain(model: Model) -> Any:
    """On the GPU where the engine has one."""
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if model.family == "encoder" else AutoModelForSeq2SeqLM
    loaded = kind.from_pretrained(model.source, dtype=model.engine.dtype).eval()
    return loaded.to("cuda" if model.engine.gpus else "cpu")


def context_of(config: Any, tokenizer: Any) -> int:
    """Most tokens of a prompt: positions that the model has, or, as with T5, any number."""
    positions = getattr(config, "max_position_embeddings", None)
    # Of RoBERTa two positions hold no tokens; only the tokenizer says so.
    return int(min(positions, tokenizer.model_max_length)) if positions else 2**31


def write(
    model: Any, tokenizer: Any, prompts: list[str], context: int, limit: int, *, candidates: int = 0, **drawn: Any
) -> list[Generation]:
    """Answers of an encoder-decoder model to padded prompts, greedy unless `drawn` has other arguments of `generate`.

    `context`: most tokens of prompt and answer; `limit`: of an answer; `candidates`: kept per token, 0 for none.
    """
    from transformers import LogitsProcessorList

    texts = TextOfToken(tokenizer)

    def answer(inputs: Any) -> list[Generation]:
        kept = _Candidates(candidates)
        processors = LogitsProcessorList([kept] if candidates else [])
        outputs = model.generate(
            **inputs, max_new_tokens=limit, logits_processor=processors, **{"do_sample": False, **drawn}
        )
        found = []
        for row, (ids, prompt_tokens) in enumerate(zip(outputs[:, 1:].tolist(), _lengths(inputs), strict=True)):
            own = ids[: min(limit, context - prompt_tokens)]
            ended = tokenizer.eos_token_id in own
            own = own[: own.index(tokenizer.eos_token_id)] if ended else own
            found.append(
                Generation(
                    text=tokenizer.decode(own, skip_special_tokens=True),
                    tokens=[(texts[token], kept.at(place, row, texts)) for place, token in enumerate(own)],
                    prompt_tokens=prompt_tokens,
                    output_tokens=len(own) + ended,
                    error=None,
                    cut=not ended,
                )
            )
        return found

    return _of_fitting(model, tokenizer, prompts, context - 1, answer)


def classify(model: Any, tokenizer: Any, prompts: list[str], context: int, task: DiagnosisTask) -> list[Generation]:
    """The most probable class of each prompt, as an answer to the ask `direct`. `context`: most tokens of a prompt."""

    order = [model.config.label2id[name] for name in task.label_names]

    def answer(inputs: Any) -> list[Generation]:
        logprobs = model(**inputs).logits.float().log_softmax(-1)[:, order].tolist()
        return [
            replace(class_answer(one, task), prompt_tokens=length)
            for one, length in zip(logprobs, _lengths(inputs), strict=True)
        ]

    return _of_fitting(model, tokenizer, prompts, context, answer)


def class_answer(logprobs: list[float], task: DiagnosisTask) -> Generation:
    """What a classifier says: the answer text of `direct`, whose token with the option letter has the classes as its
    candidates. `logprobs` (K) are in the order of the task's labels."""
    label = task.label_names[max(range(len(logprobs)), key=logprobs.__getitem__)]
    text = render_answer("direct", "", label, task)
    place = option_place([(letter, {}) for letter in text], task)
    if place is None:
        raise ValueError("the answer of `direct` holds no option letter")
    options = dict(zip(task.options, logprobs, strict=True))
    tokens = [(text[:place], {}), (text[place], options), (text[place + 1 :], {})]
    return Generation(text, tokens, prompt_tokens=0, output_tokens=1, error=None)


def _of_fitting(
    model: Any, tokenizer: Any, prompts: list[str], longest: int, answer: Callable[[Any], list[Generation]]
) -> list[Generation]:
    """Answers to the prompts of up to `longest` tokens; the others are failures."""
    import torch

    encoded = tokenizer(prompts)["input_ids"]
    found = [failed(TOO_LONG)] * len(prompts)
    places = [place for place, ids in enumerate(encoded) if len(ids) <= longest]
    if places:
        inputs = tokenizer.pad({"input_ids": [encoded[place] for place in places]}, return_tensors="pt")
        with torch.no_grad():
            generations = answer(inputs.to(next(model.parameters()).device))
        for place, generation in zip(places, generations, strict=True):
            found[place] = generation
    return found


def _lengths(inputs: Any) -> list[int]:
    lengths: list[int] = inputs["attention_mask"].sum(-1).tolist()
    return lengths


class _Candidates:
    """A logits processor that changes nothing, and keeps the most probable tokens of each step."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._steps: list[tuple[list[list[int]], list[list[float]]]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        top = scores.float().log_softmax(-1).topk(min(self._count, scores.shape[-1]))
        self._steps.append((top.indices.tolist(), top.values.tolist()))
        return scores

    def at(self, place: int, row: int, texts: dict[int, str]) -> dict[str, float]:
        """Candidates of a token: text -> log-probability. Of tokens with the same text the most probable."""
        if not self._count:
            return {}
        ids, values = self._steps[place]
        found: dict[str, float] = {}
        for token, value in zip(ids[row], values[row], strict=True):
            found.setdefault(texts[token], value)
        return found
