"""Build a reference model from its recipe: text, tokenizer, training, figures on unseen patients, model card."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from clinical_reasoner.cohort.bayes import BayesRule
from clinical_reasoner.cohort.population import Population, check_population
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.reference import ReferenceConfig
from clinical_reasoner.evidence.claims import ClaimCounts, count_claims, extract_claims
from clinical_reasoner.evidence.description import check_task_fields, describe_evidence, evidence_of
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.llm.answers import Answer, parse_answer
from clinical_reasoner.llm.prompting import load_exemplars, render_messages
from clinical_reasoner.records import Ask
from clinical_reasoner.reference.card import AskFigures, model_card
from clinical_reasoner.reference.corpus import CorpusSpec, chats
from clinical_reasoner.reference.tokenizer import train_tokenizer
from clinical_reasoner.reference.training import check_size, train
from clinical_reasoner.reference.writer import Wording
from clinical_reasoner.task import load_task

EVALUATION_SEED_OFFSET = 1
"""Added to the recipe's seed for the unseen patients."""
MAX_NEW_TOKENS = 320


def build(config: ReferenceConfig) -> Path:
    """Train and save a reference model; returns its folder. Raises UserError when the files of the recipe do not fit
    each other, or when the weights are too large."""
    spec = corpus_spec(config)
    started = time.monotonic()
    tokenizer = train_tokenizer(islice(chats(spec, 0), config.tokenizer_chats), config.vocabulary, config.context)
    model, losses = train(config, spec, tokenizer)
    minutes = (time.monotonic() - started) / 60
    folder = save(model, tokenizer, config)
    rule = BayesRule(spec.population, spec.task.grade_names)
    asked: list[tuple[Ask, int]] = [("diagnose", 0), ("diagnose", len(spec.exemplars)), ("direct", 0)]
    figures = [
        evaluate(model, tokenizer, spec, ask, shots, config.evaluation_patients)
        for ask, shots in asked
        if shots <= max(phase.max_shots for phase in config.phases)
    ]
    ceiling = bayes_accuracy(spec, rule, config.evaluation_patients)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = model_card(config, parameters, losses, minutes, figures, ceiling, labels=len(spec.task.labels))
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def corpus_spec(config: ReferenceConfig) -> CorpusSpec:
    task = load_task(config.task)
    check_task_fields(task, config.task)
    population = load_config(Population, config.population)
    check_population(population, task)
    wording = load_config(Wording, config.wording)
    return CorpusSpec(config.role, task, population, wording, load_exemplars(task.exemplars, task), config.seed)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, config: ReferenceConfig) -> Path:
    """Weights in bf16, tokenizer with chat template, greedy generation config. Raises UserError as `check_size`."""
    check_size(model, config)
    folder = Path(config.output)
    model.bfloat16()
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def evaluate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    spec: CorpusSpec,
    ask: Ask,
    shots: int,
    patients: int,
    batch: int = 50,
) -> AskFigures:
    """Greedy answers on patients of another seed than the training text's."""
    parsed, correct, claims = 0, 0, ClaimCounts()
    for start in range(0, patients, batch):
        cases = [_unseen(spec, index) for index in range(start, min(patients, start + batch))]
        prompts = [
            render_messages(ask, describe_evidence(evidence, spec.task), spec.task, exemplars=spec.exemplars[:shots])
            for evidence, _ in cases
        ]
        for text, (evidence, label) in zip(_generate(model, tokenizer, prompts), cases, strict=True):
            answer = parse_answer(text, ask, spec.task)
            counts = count_claims(extract_claims(text, spec.task), evidence)
            claims = ClaimCounts(*(a + b for a, b in zip(_astuple(claims), _astuple(counts), strict=True)))
            parsed += isinstance(answer, Answer)
            correct += isinstance(answer, Answer) and answer.label == label
    wrong = claims.contradicted + claims.not_in_evidence
    return AskFigures(
        ask, shots, patients, parsed / patients, correct / patients, claims.total, wrong / max(1, claims.total)
    )


def bayes_accuracy(spec: CorpusSpec, rule: BayesRule, patients: int) -> float:
    """Accuracy of the Bayes rule on the same unseen patients."""
    correct = 0
    for index in range(patients):
        evidence, label = _unseen(spec, index)
        correct += rule.labels[int(rule.posterior(evidence.fields, evidence.grades).argmax())] == label
    return correct / max(1, patients)


def _unseen(spec: CorpusSpec, index: int) -> tuple[Any, str]:
    patient = draw_patient(spec.population, index, spec.seed + EVALUATION_SEED_OFFSET, {"test": 1.0})
    grades = {finding.name: finding.grade for finding in grade_patient(patient, spec.task, spec.population.cut_points)}
    return evidence_of(patient, grades, spec.task), str(patient.label)


def _astuple(counts: ClaimCounts) -> tuple[int, int, int]:
    return counts.supported, counts.contradicted, counts.not_in_evidence


def _generate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[Any]) -> list[str]:
    texts = [tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True) for prompt in prompts]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
    inputs.pop("token_type_ids", None)
    writer: Any = model  # transformers types `generate` for a protocol that its own models do not satisfy
    with torch.no_grad():
        outputs = writer.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS)
    return tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
