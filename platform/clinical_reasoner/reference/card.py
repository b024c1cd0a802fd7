"""The model card of a reference model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from clinical_reasoner.config.loading import to_yaml
from clinical_reasoner.config.reference import ReferenceConfig
from clinical_reasoner.records import Ask


@dataclass(frozen=True)
class AskFigures:
    """Of one ask on unseen synthetic patients."""

    ask: Ask
    shots: int
    patients: int
    parsed: float
    """Share of answers that parse."""
    accuracy: float
    claims: int
    contradicted: float
    """Share of claims that disagree with the description or are not in it."""


def model_card(
    config: ReferenceConfig,
    parameters: int,
    losses: Sequence[float],
    minutes: float,
    figures: Sequence[AskFigures],
    ceiling: float,
    labels: int,
) -> str:
    """Markdown with recipe, text and figures. `losses` are means of 50 steps; `ceiling` is the Bayes accuracy; `labels`
    is the number of diagnoses."""
    return card_template("card.md.j2").render(
        config=config,
        recipe=to_yaml(config),
        parameters=parameters,
        losses=losses,
        minutes=minutes,
        figures=figures,
        ceiling=ceiling,
        chance=1 / labels,
    )


def card_template(name: str) -> Template:
    """A template of this folder; a value that is missing raises."""
    environment = Environment(
        loader=PackageLoader("clinical_reasoner", "reference"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
