"""What the reference vision-language model reads in the pictures of unseen phantoms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import Idefics3ForConditionalGeneration

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.evidence.claims import extract_claims, judge_claim
from clinical_reasoner.records import PatientRow
from clinical_reasoner.reference.corpus import CorpusSpec
from clinical_reasoner.reference.picture_text import picture_question
from clinical_reasoner.reference.pictures import Read
from clinical_reasoner.reference.vlm_training import Tiles, image_tokens, picture_text

MAX_NEW_TOKENS = 220


@dataclass(frozen=True)
class Unseen:
    """Phantoms of another seed than the training's, graded by the norms of the training."""

    patients: Sequence[PatientRow]
    tiles: Tiles
    read: Read


@dataclass(frozen=True)
class ReadingFigures:
    """Of the findings that the model says of pictures of which its prompt tells nothing."""

    phantoms: int
    claims: int
    supported: float
    """Share of the claims that say the grade of the phantom."""
    usual: float
    """The same where every finding is given its most frequent grade in training."""
    by_finding: dict[str, tuple[float, float]]
    """Finding -> both shares."""


@dataclass(frozen=True)
class Probe:
    """A logistic regression on the mean of the image tokens: controls against the most affected diagnosis."""

    fitted: int
    tested: int
    auc: float
    control: str
    positive: str
    """Table names of both diagnoses."""


def read_findings(
    model: Idefics3ForConditionalGeneration,
    processor: Any,
    spec: CorpusSpec,
    unseen: Unseen,
    training: Read,
    phantoms: int,
    batch: int = 25,
) -> ReadingFigures:
    """Greedy answers about the first `phantoms` graded ones."""
    graded = [place for place, one in enumerate(unseen.read.evidence) if one.grades][:phantoms]
    usual = _usual_grades(training)
    said: dict[str, list[tuple[bool, bool]]] = {}
    for start in range(0, len(graded), batch):
        places = graded[start : start + batch]
        for place, text in zip(places, answers(model, processor, spec, unseen.tiles, places), strict=True):
            truth = unseen.read.evidence[place]
            for claim in extract_claims(text, spec.task):
                right = judge_claim(claim, truth) == "supported"
                guessed = usual.get(claim.name) == truth.grades.get(claim.name)
                said.setdefault(claim.name, []).append((right, guessed))
    rows = [row for found in said.values() for row in found]
    return ReadingFigures(
        len(graded), len(rows), *_shares(rows), {name: _shares(found) for name, found in said.items()}
    )


def answers(
    model: Idefics3ForConditionalGeneration, processor: Any, spec: CorpusSpec, tiles: Tiles, places: Sequence[int]
) -> list[str]:
    """Greedy text about some pictures, one prompt for all."""
    prompt = processor.apply_chat_template(picture_question(spec), tokenize=False, add_generation_prompt=True)
    text = prompt.replace(processor.image_token, picture_text(processor))
    tokens = processor.tokenizer([text] * len(places), return_tensors="pt", add_special_tokens=False)["input_ids"]
    writer: Any = model  # transformers types `generate` for a protocol that its own models do not satisfy
    with torch.no_grad():
        written = writer.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            pixel_values=tiles.pixel_values(places),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=processor.tokenizer.eos_token_id,
            pad_token_id=processor.tokenizer.pad_token_id,
        )
    read: list[str] = processor.tokenizer.batch_decode(written[:, tokens.shape[1] :], skip_special_tokens=True)
    return read


def probe_auc(
    model: Idefics3ForConditionalGeneration, unseen: Unseen, population: Population, phantoms: int, batch: int = 50
) -> Probe:
    """Fitted on the first half of the unseen phantoms, tested on the other half."""
    ordered = sorted(population.labels, key=lambda name: population.labels[name].severity.mean)
    control, positive = ordered[0], ordered[-1]
    kept = [place for place in range(phantoms) if unseen.patients[place].label in (positive, control)]
    with torch.no_grad():
        means = [
            image_tokens(model, unseen.tiles, kept[start : start + batch]).mean(dim=1)
            for start in range(0, len(kept), batch)
        ]
    features = torch.cat(means).float().numpy()
    affected = np.array([unseen.patients[place].label == positive for place in kept])
    half = len(kept) // 2
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000))
    probe.fit(features[:half], affected[:half])
    auc = float(roc_auc_score(affected[half:], probe.decision_function(features[half:])))
    return Probe(half, len(kept) - half, auc, control, positive)


def _shares(rows: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    return sum(row[0] for row in rows) / max(1, len(rows)), sum(row[1] for row in rows) / max(1, len(rows))


def _usual_grades(training: Read) -> dict[str, str]:
    grades: dict[str, Counter[str]] = {}
    for one in training.evidence:
        for name, grade in one.grades.items():
            grades.setdefault(name, Counter())[grade] += 1
    return {name: counted.most_common(1)[0][0] for name, counted in grades.items()}
