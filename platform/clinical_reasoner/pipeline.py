"""The stages of a run in their order, as the jobs call them."""

from __future__ import annotations

from collections.abc import Mapping

from clinical_reasoner.cohort.stage import make_patients
from clinical_reasoner.config.cohort import SyntheticCohort
from clinical_reasoner.config.pipeline import CohortRunConfig, PipelineConfig
from clinical_reasoner.distillation.stage import check_students, make_students
from clinical_reasoner.evaluation.answers import make_answers
from clinical_reasoner.evaluation.cnn import make_cnn
from clinical_reasoner.evaluation.cohort_page import make_cohort_page
from clinical_reasoner.evaluation.operating_stage import make_operating_point
from clinical_reasoner.evaluation.predictions import make_predictions
from clinical_reasoner.evaluation.stage import make_report, print_comparison
from clinical_reasoner.evaluation.student_cards import finish_students
from clinical_reasoner.evidence.stage import make_findings
from clinical_reasoner.evidence.summary import print_cohort
from clinical_reasoner.holding import held
from clinical_reasoner.imaging.stage import make_measures
from clinical_reasoner.rationales.stage import make_rationales
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.stages import model_fingerprint
from clinical_reasoner.task import load_task


def run_pipeline(config: PipelineConfig) -> None:
    """Make every stage that is not finished, then print the comparison. Raises RunError, before anything is made, when
    the folder of a model is not there, and UserError when a student cannot be trained as configured."""
    teachers = [one.model for one in config.teachers().values() if not (one.base_url or one.deployment)]
    for model in (*teachers, *(student.base for student in config.students().values())):
        model_fingerprint(model)
    check_students(config, RunFolder(config.run.path))
    for part in (generate_rationales, distill_students, evaluate_models):
        part(config)


def build_cohort(config: CohortRunConfig) -> None:
    """Patients, measures and findings, and their page; prints who is left, and why others are not used."""
    run, task = RunFolder(config.run.path), load_task(config.task.file)
    with held(run):
        _make_evidence(config, run)
        print_cohort(run, task)
        print(f"Page: {make_cohort_page(run, task, isinstance(config.cohort, SyntheticCohort))}")


def generate_rationales(config: PipelineConfig) -> None:
    """Patients, measures, findings and rationales; prints what came of each ask."""
    run = RunFolder(config.run.path)
    with held(run):
        _make_evidence(config, run)
        details = make_rationales(config, run).details
        for model, asks in details["asks"].items():
            for ask, counts in asks.items():
                print(f"  {model}, {ask}: {_listed(counts)}")
        print(f"  selected: {_listed(details['selected'])}")
        if details["costs"]:
            print(f"  cost: {_listed(details['costs'])}")
        if details["unanswered"]:
            print(
                f"  no answer yet: {details['unanswered']}; start again to ask these once more (students and report "
                "that are made before then are of the table as it is, and need run.overwrite=true to follow it)"
            )


def distill_students(config: PipelineConfig) -> None:
    """Every configured student, from finished rationales."""
    run = RunFolder(config.run.path)
    with held(run):
        for _ in make_students(config, run):
            pass


def evaluate_models(config: PipelineConfig) -> None:
    """The students' answers, the endpoint's operating point, baselines, predictions and the report, from finished
    students; prints the comparison."""
    run = RunFolder(config.run.path)
    with held(run):
        for _ in make_answers(config, run):
            pass
        make_operating_point(config, run)
        make_cnn(config, run)
        make_predictions(config, run)
        make_report(config, run)
        finish_students(config, run)
        print_comparison(run)


def _listed(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _make_evidence(config: CohortRunConfig, run: RunFolder) -> None:
    make_patients(config, run)
    make_measures(config, run)
    make_findings(config, run)
