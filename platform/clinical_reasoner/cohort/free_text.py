"""Free text with what may identify a person replaced by its kind, found by Presidio: the extra `deidentify`."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from clinical_reasoner.errors import UserError


def redact(text: str, language: str, model: str) -> str:
    """The text with `<PERSON>`, `<DATE_TIME>`, `<PHONE_NUMBER>` and the like in place of what Presidio takes for one.

    A scan that finds nothing is no proof. Raises UserError, without the text, when the extra or the spaCy model is not
    installed.
    """
    found = _analyzer(language, model).analyze(text=text, language=language)
    end = len(text)
    # From the back, so that places stay; of marks that overlap, the one that reaches further.
    for mark in sorted(found, key=lambda one: (one.end, one.score), reverse=True):
        if mark.end <= end:
            text, end = f"{text[: mark.start]}<{mark.entity_type}>{text[mark.end :]}", mark.start
        elif mark.start < end:
            text, end = text[: mark.start] + text[end:], mark.start
    return text


def check_redaction(language: str, model: str) -> None:
    """Raises UserError, with the fix, when free text cannot be scanned on this machine."""
    _analyzer(language, model)


@lru_cache(maxsize=4)
def _analyzer(language: str, model: str) -> Any:
    try:
        presidio: Any = import_module("presidio_analyzer")
        engines: Any = import_module("presidio_analyzer.nlp_engine")
        spacy: Any = import_module("spacy")
    except ImportError as error:
        fix = "pip install 'clinical-reasoner[deidentify]'"
        raise UserError(f"scanning free text for identifiers needs the extra `deidentify`: {fix}") from error
    if not (spacy.util.is_package(model) or Path(model).is_dir()):  # Presidio would download it
        raise UserError(
            f"cohort.deidentify.spacy_model {model!r} is not installed: python -m spacy download {model}, or a folder"
        )
    settings = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
    engine = engines.NlpEngineProvider(nlp_configuration=settings).create_engine()
    return presidio.AnalyzerEngine(nlp_engine=engine, supported_languages=[language])
