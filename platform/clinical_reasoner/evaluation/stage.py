"""Stage `report`: the comparison as a page, as JSON, and as a table on the terminal."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from clinical_reasoner import __version__
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.evaluation.collect import collect
from clinical_reasoner.evaluation.operating_stage import OPERATING_STAGE
from clinical_reasoner.evaluation.predictions import PREDICTIONS_STAGE
from clinical_reasoner.evaluation.report import metrics_json, render_report
from clinical_reasoner.records import PREDICTIONS
from clinical_reasoner.runs import Manifest, RunFolder
from clinical_reasoner.stages import Rows, Stage, run_stage

REPORT_STAGE = "report"
REPORT, METRICS = "report/report.html", "report/metrics.json"


def make_report(config: PipelineConfig, run: RunFolder) -> Manifest:
    """Write `report/report.html` and `report/metrics.json`."""
    settings = {
        "evaluation": config.evaluation.model_dump(mode="json"),
        "prices": [config.teacher.endpoint.prompt_price, config.teacher.endpoint.output_price],
        "uncalibrated_threshold": config.serving.threshold,
        "version": __version__,
    }
    stage = Stage(REPORT_STAGE, settings, [PREDICTIONS_STAGE, OPERATING_STAGE])

    def make() -> Rows:
        predictions = run.read_table(PREDICTIONS_STAGE, PREDICTIONS)
        report = collect(config, run, predictions)
        run.write_bytes(REPORT, render_report(report).encode())
        run.write_bytes(METRICS, json.dumps(metrics_json(report), indent=2).encode())
        return Rows(predictions.num_rows, predictions.num_rows)

    return run_stage(run, stage, make, overwrite=config.run.overwrite)


def print_comparison(run: RunFolder) -> None:
    """The comparison of `report/metrics.json` as a table on the terminal."""
    report = json.loads(run.read_bytes(METRICS))
    title = "Accuracy on the test split" + (" (synthetic patients)" if report["synthetic"] else "")
    table = Table(
        "Model",
        "Seeds",
        "Trained on",
        "n",
        "Accuracy [95 % CI]",
        "Macro-F1 [95 % CI]",
        "AUROC [95 % CI]",
        "Unparsed",
        title=title,
    )
    for entry in report["models"]:
        table.add_row(
            entry["name"],
            str(entry["seeds"]),
            "-" if entry["trained_on"] is None else str(entry["trained_on"]),
            str(entry["n"]),
            *(_interval(entry[name]) for name in ("accuracy", "macro_f1", "auroc")),
            str(entry["unparsed"]),
        )
    console = Console(width=150)
    console.print(table)
    if report["ceiling"] is not None:
        console.print(f"Bayes ceiling of the population: {report['ceiling']['accuracy']:.3f}")
    console.print(_cascade(report["cascade"]) if report["cascade"] else report["no_cascade"])
    console.print(f"Report: {run.child(REPORT)}", soft_wrap=True)


def _cascade(cascade: dict[str, Any]) -> str:
    """One line for each way to answer."""
    lines = [f"{one['name']}: macro-F1 {_interval(one['macro_f1'])}" for one in cascade["approaches"]]
    return "\n".join([*lines, f"Share that reaches the teacher: {_interval(cascade['to_teacher'])}"])


def _interval(estimate: dict[str, float] | None) -> str:
    return "-" if estimate is None else f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
