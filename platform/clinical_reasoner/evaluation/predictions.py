"""Stage `predictions`: every model's answer about every visit of the test split, in one table."""

from __future__ import annotations

import pyarrow as pa

from clinical_reasoner.cohort.bayes import BayesRule
from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.stage import load_population
from clinical_reasoner.config.cohort import SyntheticCohort
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.baselines import evidence_frame, fit_logistic_regression, predict_probabilities
from clinical_reasoner.evaluation.answers import answers_stage
from clinical_reasoner.evidence.description import parse_description
from clinical_reasoner.records import FINDINGS, PREDICTIONS, RATIONALES, PredictionRow, to_table
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage
from clinical_reasoner.task import DiagnosisTask, load_task

PREDICTIONS_STAGE = "predictions"
TEACHER_ARMS = {"direct": "direct", "diagnose": "few_shot"}
"""Ask -> arm of the teacher."""
BASELINE = ("logistic regression", "baseline")
CEILING = ("Bayes rule", "ceiling")


def make_predictions(config: PipelineConfig, run: RunFolder) -> Manifest:
    """Write `predictions/` for teacher, students, logistic regression and, for a synthetic cohort, the Bayes rule."""
    arms = list(config.student.arms)
    settings = {"arms": arms, "seed": config.evaluation.seed, "cohort": config.cohort.model_dump(mode="json")}
    reads = ["findings", "rationales", *(answers_stage(arm) for arm in arms)]

    def make() -> Rows:
        task = load_task(config.task.file)
        findings = run.read_table("findings", FINDINGS)
        rows = _answered(run.read_table("rationales", RATIONALES), "teacher", TEACHER_ARMS)
        for arm in arms:
            table = run.read_table(answers_stage(arm), RATIONALES)
            rows += _answered(table, "student", dict.fromkeys(("direct", "diagnose"), arm))
        rows += _logistic_regression(findings, task, config.evaluation.seed)
        if isinstance(config.cohort, SyntheticCohort):
            population = load_population(config.cohort.population, task).graded_at(config.evidence.cut_points)
            rows += _bayes_rule(findings, task, population)
        run.write_table(PREDICTIONS_STAGE, to_table(rows, PREDICTIONS))
        return Rows(len(rows), len(rows))

    return run_stage(run, Stage(PREDICTIONS_STAGE, settings, reads), make, overwrite=config.run.overwrite)


def _answered(table: pa.Table, model: str, arms: dict[str, str]) -> list[PredictionRow]:
    return [
        PredictionRow(
            **{name: row[name] for name in ("patient_id", "visit_id", "split", "label", "predicted", "rationale")},
            model=model,
            arm=arms[row["ask"]],
            probabilities=None if row["probabilities"] is None else tuple(row["probabilities"]),
        )
        for row in table.to_pylist()
        if row["ask"] in arms and row["split"] == "test"
    ]


def _logistic_regression(findings: pa.Table, task: DiagnosisTask, seed: int) -> list[PredictionRow]:
    rows = findings.to_pylist()
    frame = evidence_frame([parse_description(row["description"], task) for row in rows], task)
    train = [index for index, row in enumerate(rows) if row["split"] == "train"]
    test = [index for index, row in enumerate(rows) if row["split"] == "test"]
    model = fit_logistic_regression(frame.iloc[train], [rows[index]["label"] for index in train], task, seed)
    probabilities = predict_probabilities(model, frame.iloc[test], task)
    return [
        _prediction(rows[index], BASELINE, list(values), task)
        for index, values in zip(test, probabilities, strict=True)
    ]


def _bayes_rule(findings: pa.Table, task: DiagnosisTask, population: Population) -> list[PredictionRow]:
    rule = BayesRule(population, task.grade_names)
    predictions = []
    for row in findings.to_pylist():
        if row["split"] == "test":
            evidence = parse_description(row["description"], task)
            by_label = dict(zip(rule.labels, rule.posterior(evidence.fields, evidence.grades), strict=True))
            predictions.append(_prediction(row, CEILING, [float(by_label[name]) for name in task.label_names], task))
    return predictions


def _prediction(
    row: dict[str, str], key: tuple[str, str], probabilities: list[float], task: DiagnosisTask
) -> PredictionRow:
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return PredictionRow(
        **{name: row[name] for name in ("patient_id", "visit_id", "split", "label")},
        model=key[0],
        arm=key[1],
        predicted=task.label_names[best],
        probabilities=tuple(float(value) for value in probabilities),
    )
