"""All stages of a run in their order."""

from __future__ import annotations

from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.stage import make_students
from clinical_reasoner.evaluation.answers import make_answers
from clinical_reasoner.evaluation.predictions import make_predictions
from clinical_reasoner.evaluation.stage import make_report, print_comparison
from clinical_reasoner.evidence.stage import make_findings
from clinical_reasoner.rationales.stage import make_rationales
from clinical_reasoner.runs import RunFolder


def run_pipeline(config: PipelineConfig) -> None:
    """Make every stage that is not finished, then print the comparison."""
    run = RunFolder(config.run.path)
    make_patients(config, run)
    make_findings(config, run)
    make_rationales(config, run)
    for _ in make_students(config, run):
        pass
    for _ in make_answers(config, run):
        pass
    make_predictions(config, run)
    make_report(config, run)
    print_comparison(run)
