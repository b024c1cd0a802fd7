"""The model card of the reference vision-language model."""

from __future__ import annotations

from collections.abc import Sequence

from clinical_reasoner.config.loading import to_yaml
from clinical_reasoner.config.reference import VisionReferenceConfig
from clinical_reasoner.imaging.views import PICTURE_PIXELS, VIEWS
from clinical_reasoner.reference.card import card_template
from clinical_reasoner.reference.vlm_figures import Probe, ReadingFigures


def vlm_card(
    config: VisionReferenceConfig,
    parameters: int,
    losses: Sequence[float],
    minutes: float,
    figures: ReadingFigures,
    probe: Probe,
) -> str:
    """Markdown with recipe, text and figures. `losses` are means of 50 steps."""
    return card_template("vlm_card.md.j2").render(
        config=config,
        recipe=to_yaml(config),
        parameters=parameters,
        losses=losses,
        minutes=minutes,
        figures=figures,
        probe=probe,
        views=len(VIEWS),
        height=PICTURE_PIXELS[0],
        width=PICTURE_PIXELS[1],
    )
