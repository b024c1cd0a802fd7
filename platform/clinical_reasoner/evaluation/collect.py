"""Collect: from the tables of a run to everything that its report says."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clinical_reasoner import __version__
from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.arms import ARM_TITLES
from clinical_reasoner.config.cohort import SyntheticCohort
from clinical_reasoner.config.evaluation import EvaluationConfig
from clinical_reasoner.config.loading import to_yaml
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.distillation.students import Student, students_of
from clinical_reasoner.evaluation.baselines import KEYS as BASELINES
from clinical_reasoner.evaluation.baselines import NAMES as BASELINE_NAMES
from clinical_reasoner.evaluation.baselines import baseline_stages, baselines_trained_on
from clinical_reasoner.evaluation.cascade_page import run_cascade
from clinical_reasoner.evaluation.ceiling import population_ceiling
from clinical_reasoner.evaluation.cohort_page import run_summary
from clinical_reasoner.evaluation.metrics import Estimate, Key, evaluate, paired_difference
from clinical_reasoner.evaluation.operating_stage import OPERATING_STAGE
from clinical_reasoner.evaluation.predictions import CEILING, PREDICTIONS_STAGE, TEACHER
from clinical_reasoner.evaluation.report import Claims, Example, ExampleAnswer, ReportInput, StageRows
from clinical_reasoner.evaluation.selection_counts import COLUMNS
from clinical_reasoner.evaluation.selection_summary import TeacherSelection, VisitKey, summarise_selection
from clinical_reasoner.records import FINDINGS, RATIONALES
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask, load_task

NAMES: dict[Key, str] = {
    **{(TEACHER, kind.arm): f"Teacher, {kind.title}" for kind in ASK_KINDS.values() if kind.arm},
    **BASELINE_NAMES,
    CEILING: "Bayes rule (ceiling)",
}


def collect(config: PipelineConfig, run: RunFolder, predictions: pa.Table) -> ReportInput:
    """Everything that the report says about a run."""
    task = load_task(config.task.file)
    settings = config.evaluation
    metrics = evaluate(predictions, task, resamples=settings.resamples, seed=settings.seed, partial=_seeing(config))
    keys = [(entry.model, entry.arm) for entry in metrics]
    cohort = config.cohort
    cascade = run_cascade(config, run, task)
    ceiling, note = population_ceiling(config, cohort, task) if isinstance(cohort, SyntheticCohort) else (None, "")
    return ReportInput(
        title="Comparison of reasoning-aware diagnosis models",
        task_title=task.title,
        labels=task.label_names,
        synthetic=isinstance(cohort, SyntheticCohort),
        stand_ins=any("reference/models/" in model for model in _models(config)),
        cohort=run_summary(run, task),
        metrics=tuple(metrics),
        names=display_names(config),
        trained_on=_trained_on(config, run),
        ceiling=ceiling,
        ceiling_note=note,
        differences=tuple(_differences(config, predictions, keys)),
        cascade=None if isinstance(cascade, str) else cascade,
        no_cascade=cascade if isinstance(cascade, str) else "",
        claims=tuple(_claims(config, run)),
        selection=run_selection(run, task, settings),
        examples=tuple(_examples(run, predictions, task, settings.examples)),
        config_yaml=to_yaml(config),
        versions={name: version(name) for name in ("ray", "torch", "transformers", "trl")}
        | {"clinical-reasoner": __version__},
        stages=tuple(_stage_counts(config, run)),
    )


def _models(config: PipelineConfig) -> list[str]:
    return [
        *(teacher.model for teacher in config.teachers().values()),
        *(student.base for student in config.students().values()),
    ]


def display_names(config: PipelineConfig) -> dict[Key, str]:
    """Name in the report of each (model, arm)."""
    kinds = [kind for kind in ASK_KINDS.values() if kind.arm]
    more = {(name, kind.arm): f"{name}, {kind.title}" for name in config.more_teachers for kind in kinds if kind.arm}
    return NAMES | more | {(student.name, student.arm_name): _student_name(student) for student in students_of(config)}


def _student_name(student: Student) -> str:
    name = "Student" if student.name == "student" else student.name
    reads = {"text": "", "image": " (image)", "both": " (image and text)"}[student.settings.inputs]
    return f"{name}{reads}, {ARM_TITLES.get(student.arm_name, student.arm_name)}"


def _seeing(config: PipelineConfig) -> list[Key]:
    """Models that need a scan, and so answer about the visits that have one."""
    students = [(one.name, one.arm_name) for one in students_of(config) if one.settings.inputs != "text"]
    return [BASELINES["cnn_3d"], *students]


def _trained_on(config: PipelineConfig, run: RunFolder) -> dict[Key, int]:
    students = [(student, run.manifest(student.stage)) for student in students_of(config)]
    trained: dict[Key, int] = {(one.name, one.arm_name): found.rows_out for one, found in students if found}
    splits = run.read_table("findings", FINDINGS).column("split").to_pylist()
    return trained | baselines_trained_on(config.evaluation, run, splits.count("train"))


def _differences(config: PipelineConfig, predictions: pa.Table, keys: list[Key]) -> list[tuple[str, Estimate]]:
    """Each arm of a student against its label-only one, the same arm with a picture against that without, and every
    student against what was fitted and the teacher, each on the visits that both were asked about."""
    settings, names = config.evaluation, display_names(config)
    learnt = [key for name, key in BASELINES.items() if name != "majority"]
    students = [key for key in keys if key[0] in config.students()]
    reasoned: list[Key] = [("teacher", kind.arm) for kind in ASK_KINDS.values() if kind.arm and kind.gives_rationale]
    pairs = [
        *((key, (key[0], "label_only")) for key in students if key[1] != "label_only"),
        *((key, other) for key in students for other in students if _adds_picture(config, key, other)),
        *((key, ("teacher", "direct")) for key in reasoned),
        *((("teacher", "few_shot"), key) for key in reasoned if key != ("teacher", "few_shot")),
        *((student, baseline) for baseline in learnt for student in students),
        *((student, ("teacher", "few_shot")) for student in students),
    ]
    asked = {key: _visits(predictions, key) for key in keys}
    most = max(map(len, asked.values()))
    found = []
    for first, second in pairs:
        common = asked.get(first, set()) & asked.get(second, set())
        if common:
            fewer = "" if len(common) == most else f" (the {len(common)} visits of both)"
            both = _of_visits(predictions, common)
            difference = paired_difference(both, first, second, resamples=settings.resamples, seed=settings.seed)
            found.append((f"{names[first]} minus {names[second]}{fewer}", difference))
    return found


def _visits(predictions: pa.Table, key: Key) -> set[VisitKey]:
    rows = predictions.select(["model", "arm", "patient_id", "visit_id"]).to_pylist()
    return {(row["patient_id"], row["visit_id"]) for row in rows if (row["model"], row["arm"]) == key}


def _of_visits(predictions: pa.Table, visits: set[VisitKey]) -> pa.Table:
    keys = zip(predictions["patient_id"].to_pylist(), predictions["visit_id"].to_pylist(), strict=True)
    return predictions.filter(pa.array([key in visits for key in keys], pa.bool_()))


def _adds_picture(config: PipelineConfig, key: Key, other: Key) -> bool:
    """Whether two students have the same base and arm, the first with picture and text, the other with one of them."""
    one, another = config.students()[key[0]], config.students()[other[0]]
    alike = key[1] == other[1] and one.base == another.base
    return alike and one.inputs == "both" and another.inputs != "both"


def _claims(config: PipelineConfig, run: RunFolder) -> list[Claims]:
    """Of every text that holds a rationale, per model and ask."""
    rationales = run.read_table("rationales", RATIONALES)
    teachers = {config.teacher.model: "Teacher", **{name: name for name in config.more_teachers}}
    tables = [(name, rationales.filter(pc.equal(rationales["model"], model))) for model, name in teachers.items()]
    names = display_names(config)
    tables += [
        (f"{names[one.name, one.arm_name]}, seed {one.seed}", _tested(run.read_table(one.answers_stage, RATIONALES)))
        for one in students_of(config)
    ]
    found = []
    for name, table in tables:
        rows = [row for row in table.to_pylist() if row["rationale"]]
        for ask in dict.fromkeys(row["ask"] for row in rows):
            of_ask = [row for row in rows if row["ask"] == ask]
            found.append(
                Claims(
                    name=f"{name}, {ask}",
                    rationales=len(of_ask),
                    supported=sum(row["claims_supported"] for row in of_ask),
                    contradicted=sum(row["claims_contradicted"] for row in of_ask),
                    not_in_evidence=sum(row["claims_not_in_evidence"] for row in of_ask),
                )
            )
    return found


def _tested(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["split"], "test"))


def run_selection(run: RunFolder, task: DiagnosisTask, settings: EvaluationConfig) -> tuple[TeacherSelection, ...]:
    """What became of the teachers' answers of a run; its tables are read in batches."""
    described = pa.schema([FINDINGS.field(name) for name in ("patient_id", "visit_id", "description")])

    def descriptions(visits: Collection[VisitKey]) -> dict[VisitKey, str]:
        rows = (row for batch in run.batches("findings", described) for row in batch.to_pylist())
        read = (((row["patient_id"], row["visit_id"]), row["description"]) for row in rows)
        return {visit: description for visit, description in read if visit in visits}

    return summarise_selection(
        (row for batch in run.batches("rationales", COLUMNS) for row in batch.to_pylist()),
        descriptions,
        task,
        examples=settings.rejected_examples,
        resamples=settings.resamples,
        seed=settings.seed,
    )


def _examples(run: RunFolder, predictions: pa.Table, task: DiagnosisTask, count: int) -> list[Example]:
    """The first test visits in the order of the table, the labels in turn."""
    visits = [row for row in run.read_table("findings", FINDINGS).to_pylist() if row["split"] == "test"]
    by_label = {name: [row for row in visits if row["label"] == name] for name in task.label_names}
    chosen: list[dict[str, Any]] = []
    while len(chosen) < count and any(by_label.values()):
        for rows in by_label.values():
            if rows and len(chosen) < count:
                chosen.append(rows.pop(0))
    answers = _of_first_seed(predictions.to_pylist())
    return [
        Example(
            heading=f"Test patient with the diagnosis {row['label']}",
            description=row["description"],
            label=row["label"],
            answers=tuple(
                ExampleAnswer(**{name: answer[name] for name in ExampleAnswer.model_fields})
                for answer in answers
                if (answer["patient_id"], answer["visit_id"]) == (row["patient_id"], row["visit_id"])
            ),
        )
        for row in chosen
    ]


def _of_first_seed(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of one training of each model."""
    seeds: dict[Key, set[int | None]] = {}
    for row in answers:
        seeds.setdefault((row["model"], row["arm"]), set()).add(row["seed"])
    first = {key: min(found, key=lambda seed: -1 if seed is None else seed) for key, found in seeds.items()}
    return [row for row in answers if row["seed"] == first[row["model"], row["arm"]]]


def _stage_counts(config: PipelineConfig, run: RunFolder) -> list[StageRows]:
    students = students_of(config)
    names = [
        "patients",
        "findings",
        "rationales",
        *(student.stage for student in students),
        *(student.answers_stage for student in students),
        OPERATING_STAGE,
        *baseline_stages(config.evaluation),
        PREDICTIONS_STAGE,
    ]
    manifests = [(name, run.manifest(name)) for name in names]
    return [
        StageRows(name=name, rows_in=found.rows_in, rows_out=found.rows_out, rejected=found.rows_rejected)
        for name, found in manifests
        if found
    ]
