"""Build the reference vision-language model from its recipe: phantoms, training, figures on unseen ones, model card."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from clinical_reasoner.cohort.population import Population, check_population
from clinical_reasoner.config.loading import load_config
from clinical_reasoner.config.reference import VisionReferenceConfig
from clinical_reasoner.evidence.description import check_task_fields
from clinical_reasoner.imaging.phantom_volumes import PhantomParameters
from clinical_reasoner.llm.prompting import load_exemplars
from clinical_reasoner.reference.corpus import CorpusSpec
from clinical_reasoner.reference.pictures import PhantomSpec, draw_phantoms, fit_phantom_norms, read_phantoms
from clinical_reasoner.reference.vlm import new_processor, new_vlm, save_vlm
from clinical_reasoner.reference.vlm_card import vlm_card
from clinical_reasoner.reference.vlm_figures import Unseen, probe_auc, read_findings
from clinical_reasoner.reference.vlm_training import prepare, train_vlm
from clinical_reasoner.reference.writer import Wording
from clinical_reasoner.task import load_task

EVALUATION_SEED_OFFSET = 1
"""Added to the recipe's seed for the unseen phantoms."""


def build_vlm(config: VisionReferenceConfig) -> Path:
    """Train and save the model; returns its folder. Raises UserError when the files of the recipe do not fit each
    other, or when the weights are too large."""
    phantom_spec, text_spec = specs(config)
    torch.manual_seed(config.seed)
    processor = new_processor(config.base, config.vision)
    model = new_vlm(config, processor)
    started = time.monotonic()
    phantoms = draw_phantoms(phantom_spec, config.seed, config.phantoms)
    norms = fit_phantom_norms(phantoms, phantom_spec, config.fewest_controls)
    read = read_phantoms(phantoms.patients, norms, phantom_spec)
    losses = train_vlm(config, text_spec, model, processor, prepare(processor, phantoms.pictures), read)
    minutes = (time.monotonic() - started) / 60
    model.bfloat16().float()  # the figures are those of the weights as they are saved
    count = max(config.evaluation_phantoms, config.probe_phantoms)
    others = draw_phantoms(phantom_spec, config.seed + EVALUATION_SEED_OFFSET, count)
    graded = read_phantoms(others.patients, norms, phantom_spec)
    unseen = Unseen(others.patients, prepare(processor, others.pictures), graded)
    figures = read_findings(model, processor, text_spec, unseen, read, config.evaluation_phantoms)
    probe = probe_auc(model, unseen, text_spec.population, config.probe_phantoms)
    folder = save_vlm(model, processor, config.output)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = vlm_card(config, parameters, losses, minutes, figures, probe)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def specs(config: VisionReferenceConfig) -> tuple[PhantomSpec, CorpusSpec]:
    """What phantoms and text are made from."""
    task = load_task(config.task)
    check_task_fields(task, config.task)
    population = load_config(Population, config.population)
    check_population(population, task)
    parameters = load_config(PhantomParameters, config.parameters)
    wording = load_config(Wording, config.wording)
    exemplars = load_exemplars(task.exemplars, task)
    text = CorpusSpec("student", task, population, wording, exemplars, config.seed)
    return PhantomSpec(task, population, parameters), text
