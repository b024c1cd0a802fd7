"""What came of the asks of a run, counted while its rows go by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.teacher import TeacherConfig
from clinical_reasoner.llm.generation import is_final

Row = dict[str, Any]
ENGINE = "engine: "
"""How the reason of a row begins that has no answer."""


def is_unanswered(row: Row) -> bool:
    """Whether the row has no answer for a reason that may pass: it is asked again by the next run."""
    reason = row["reject_reason"] or ""
    return reason.startswith(ENGINE) and not is_final(reason.removeprefix(ENGINE))


class Counts:
    """`add` rows of the `rationales` table, then `summary`."""

    def __init__(self) -> None:
        self.rows = 0
        self._asks: dict[tuple[str, str], Counter[str]] = {}
        self._reasons: Counter[str] = Counter()
        self._selected: Counter[str] = Counter()
        self._unanswered = 0

    def add(self, row: Row) -> None:
        self.rows += 1
        self._asks.setdefault((row["model"], row["ask"]), Counter()).update(_counted(row))
        self._reasons[row["reject_reason"] or "accepted"] += 1
        self._selected[row["selected"] or "not selected"] += 1
        self._unanswered += is_unanswered(row)

    def summary(self, teachers: Mapping[str, TeacherConfig]) -> dict[str, Any]:
        """For the manifest: of each model and ask its answers, those that parse, those that name the recorded diagnosis
        where it was not told, claims by verdict where reasons were asked for, and tokens; then reasons, what is
        selected, and asks that have no answer yet. Costs where a teacher's prices are known."""
        asks: dict[str, dict[str, dict[str, int]]] = {}
        for (model, ask), counts in self._asks.items():
            asks.setdefault(model, {})[ask] = dict(counts)
        costs = {model: _cost(teachers[model], list(of_model.values())) for model, of_model in asks.items()}
        return {
            "asks": asks,
            "reasons": dict(self._reasons),
            "selected": dict(self._selected),
            "unanswered": self._unanswered,
            "costs": {model: cost for model, cost in costs.items() if cost is not None},
        }


def _counted(row: Row) -> dict[str, int]:
    kind = ASK_KINDS[row["ask"]]
    counts = {
        "answers": 1,
        "engine_errors": int((row["reject_reason"] or "").startswith(ENGINE)),
        "parsed": int(row["rationale"] is not None or row["predicted"] is not None),
    }
    if kind.gives_label:
        counts["correct"] = int(row["predicted"] is not None and row["predicted"] == row["label"])
    if kind.gives_rationale:
        counts |= {name: row[name] for name in ("claims_supported", "claims_contradicted", "claims_not_in_evidence")}
    return counts | {name: row[name] for name in ("prompt_tokens", "output_tokens")}


def _cost(teacher: TeacherConfig, asks: list[dict[str, int]]) -> float | None:
    prompt, output = teacher.endpoint.prompt_price, teacher.endpoint.output_price
    if prompt is None and output is None:
        return None
    tokens = {name: sum(counts[name] for counts in asks) for name in ("prompt_tokens", "output_tokens")}
    return round((tokens["prompt_tokens"] * (prompt or 0) + tokens["output_tokens"] * (output or 0)) / 1e6, 4)
