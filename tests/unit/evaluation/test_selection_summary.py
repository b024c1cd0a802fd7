"""The numbers about selection, by hand, and the examples of what was rejected."""

from __future__ import annotations

import html
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner import runs
from clinical_reasoner.config.evaluation import EvaluationConfig
from clinical_reasoner.evaluation.collect import run_selection
from clinical_reasoner.evaluation.report import page_environment
from clinical_reasoner.evaluation.selection_examples import LONGEST_ANSWER, RejectedExample, rejected_example
from clinical_reasoner.evaluation.selection_summary import (
    PAPER_WORDS,
    Agreement,
    AskRows,
    CoveredVisits,
    TeacherSelection,
    VisitKey,
    summarise_selection,
)
from clinical_reasoner.evidence.description import Evidence, describe_evidence
from clinical_reasoner.records import FINDINGS, RATIONALES, FindingsRow, RationaleRow, to_table
from clinical_reasoner.runs import RunFolder
from clinical_reasoner.task import DiagnosisTask

EVIDENCE = Evidence({"age_years": "74", "mmse": "24"}, {"hippocampal_atrophy": "Severe"})
PARSE, CLAIMS, DIAGNOSIS = "parse: no diagnosis line", "claims: contradicts the evidence", "diagnosis: another one"
TRAIN = {"AD": "train", "MCI": "train", "NC": "train", "test": "test"}


def row(visit: str, ask: str, reason: str | None = None, **fields: Any) -> RationaleRow:
    """About the visit of a person who is called as the diagnosis; `test` has normal cognition."""
    usual = {
        "row_id": f"CANARY-{visit}|{ask}|{fields.get('sample', 0)}",
        "patient_id": f"CANARY-{visit}",
        "visit_id": "CANARY-bl",
        "split": TRAIN[visit],
        "label": "NC" if visit == "test" else visit,
        "sample": 0,
        "model": "one",
        "prompt_version": "v1",
        "shots": 0,
        "seed": 0,
        "text": "CANARY-TEXT",
        "rationale": "One two three four.",
        "claims_supported": 3,
        "claims_contradicted": 0,
        "claims_not_in_evidence": 0,
        "prompt_tokens": 100,
        "output_tokens": 10,
    }
    return RationaleRow(**{**usual, "ask": ask, "accepted": reason is None, "reject_reason": reason, **fields})


def rows() -> list[RationaleRow]:
    """Two samples of `diagnose` about three training visits and a test visit, by one teacher."""
    contradicts: dict[str, Any] = {"claims_supported": 1, "claims_contradicted": 1, "claims_not_in_evidence": 1}
    nothing: dict[str, Any] = {"rationale": None, "claims_supported": 0}
    return [
        row("AD", "rationalize"),
        row("AD", "diagnose", predicted="AD", selected="reasoned", rationale="One two."),
        row("AD", "diagnose", DIAGNOSIS, sample=1, predicted="NC"),
        row("MCI", "rationalize", selected="hinted", rationale="One two three four five six."),
        row("MCI", "diagnose", PARSE, **nothing),
        row("MCI", "diagnose", CLAIMS, sample=1, predicted="MCI", **contradicts),
        row("NC", "rationalize", CLAIMS, **contradicts),
        row("NC", "diagnose", DIAGNOSIS, predicted="AD"),
        row("NC", "diagnose", DIAGNOSIS, sample=1, predicted="AD"),
        row("test", "diagnose", predicted="NC", selected="reasoned"),
        row("test", "diagnose", sample=1, predicted="NC", selected="reasoned"),
        row("test", "direct", predicted="NC", **nothing),
    ]


def selection_of(task: DiagnosisTask, table: list[RationaleRow], examples: int = 0) -> tuple[TeacherSelection, ...]:
    def descriptions(visits: Collection[VisitKey]) -> dict[VisitKey, str]:
        return dict.fromkeys(visits, describe_evidence(EVIDENCE, task))

    stream = (one.model_dump() for one in table)
    return summarise_selection(stream, descriptions, task, examples=examples, resamples=200, seed=1)


def example_of(task: DiagnosisTask, text: str, **fields: Any) -> RejectedExample:
    made = row("AD", "diagnose", CLAIMS, text=text, **fields).model_dump()
    return rejected_example(made, describe_evidence(EVIDENCE, task), task)


def page_of(selection: tuple[TeacherSelection, ...]) -> str:
    template = page_environment().get_template("selection.html.j2")
    return template.render(selections=[(one, "figure") for one in selection], short_note="", paper_words=PAPER_WORDS)


def test_answers_visits_and_reasons_are_counted(task: DiagnosisTask) -> None:
    (one,) = selection_of(task, rows())
    of_ask = [tuple(ask.model_dump().values()) for ask in one.asks]
    names = ["ask", "asked", "parsed", "accepted", "rejected", "selected", "prompt_tokens", "output_tokens"]
    assert [*AskRows.model_fields] == names
    assert of_ask == [
        ("rationalize", 3, 3, 2, 1, 1, 300, 30),
        ("diagnose", 8, 7, 3, 5, 1, 800, 80),
        ("direct", 1, 1, 1, 0, 0, 100, 10),
    ]
    assert one.asked == 12
    assert one.visits == CoveredVisits(reasoned=1, hinted=1, none_selected=1), "the test split teaches nobody"
    assert [(reason.reason, reason.rows, reason.by_ask) for reason in one.reasons] == [
        (DIAGNOSIS, 3, {"rationalize": 0, "diagnose": 3, "direct": 0}),
        (CLAIMS, 2, {"rationalize": 1, "diagnose": 1, "direct": 0}),
        (PARSE, 1, {"rationalize": 0, "diagnose": 1, "direct": 0}),
    ]


def test_length_and_claims_of_rationales(task: DiagnosisTask) -> None:
    (one,) = selection_of(task, rows())
    assert one.parsed and one.parsed.unsupported and one.selected and one.selected.unsupported
    # Ten rationales: one of 2 words, one of 6, eight of 4. Two have 3 claims of which 2 are unsupported.
    assert one.parsed.rationales == 10
    assert one.parsed.words.mean == pytest.approx(4.0) and one.parsed.words.median == 4
    assert one.parsed.words.low == pytest.approx(2.9) and one.parsed.words.high == pytest.approx(5.1)
    assert one.parsed.claims_per_rationale == pytest.approx(3.0)
    assert one.parsed.unsupported.value == pytest.approx(4 / 30)
    assert 0 <= one.parsed.unsupported.low < 4 / 30 < one.parsed.unsupported.high <= 1
    assert one.selected.rationales == 2
    assert [*one.selected.words.model_dump().values()] == pytest.approx([4.0, 4.0, 2.2, 5.8])
    assert one.selected.unsupported.value == 0


def test_people_are_drawn_and_not_claims(task: DiagnosisTask) -> None:
    false: dict[str, Any] = {"claims_supported": 0, "claims_contradicted": 100}
    true: dict[str, Any] = {"claims_supported": 100}
    (one,) = selection_of(task, [row("AD", "rationalize", CLAIMS, **false), row("MCI", "rationalize", **true)])
    assert one.parsed and one.parsed.unsupported
    assert (one.parsed.unsupported.low, one.parsed.unsupported.value, one.parsed.unsupported.high) == (0.0, 0.5, 1.0)
    (mute,) = selection_of(task, [row("AD", "rationalize", "claims: none about the patient", claims_supported=0)])
    assert mute.parsed and mute.parsed.unsupported is None and mute.selected is None


def test_agreement_of_samples(task: DiagnosisTask) -> None:
    (one,) = selection_of(task, rows())
    # AD and NC tie, AD comes first; one that was not read and MCI; AD twice about NC; NC twice about NC.
    assert one.agreement == (
        Agreement(ask="diagnose", visits=4, agreement=0.75, unanimous=2, majority_accuracy=0.75, single_accuracy=0.5),
    )
    unknown = [row("AD", "diagnose", sample=sample, predicted="AD", label=None) for sample in range(3)]
    (known,) = selection_of(task, unknown)[0].agreement
    assert (known.agreement, known.majority_accuracy, known.single_accuracy) == (1.0, None, None)
    assert selection_of(task, rows()[:1])[0].agreement == ()


def test_each_teacher_by_itself(task: DiagnosisTask) -> None:
    second = [one.model_copy(update={"model": "two"}) for one in rows()[:2]]
    mixed = [*rows()[:3], *second, *rows()[3:]]
    one, two = selection_of(task, mixed)
    assert one == selection_of(task, rows())[0]
    assert (two.model, two.asked, two.reasons, two.visits.reasoned) == ("two", 2, (), 1)
    assert selection_of(task, []) == ()


def test_examples_are_the_first_of_each_reason_the_asks_in_turn(task: DiagnosisTask) -> None:
    numbered = [one.model_copy(update={"text": f"Text {place}."}) for place, one in enumerate(rows())]
    assert selection_of(task, numbered)[0].examples == ()
    (one,) = selection_of(task, numbered, examples=2)
    shown = [(one.reason, one.ask, "".join(part.text for part in one.passages)) for one in one.examples]
    assert shown == [
        (DIAGNOSIS, "diagnose", "Text 2."),
        (DIAGNOSIS, "diagnose", "Text 7."),
        (CLAIMS, "diagnose", "Text 5."),
        (CLAIMS, "rationalize", "Text 6."),
        (PARSE, "diagnose", "Text 4."),
    ]
    assert [(one.recorded, one.stated, one.told) for one in one.examples][2:] == [
        ("MCI", "MCI", False),
        ("NC", None, True),
        ("MCI", None, False),
    ]


def test_unsupported_claims_are_marked_where_they_stand(task: DiagnosisTask) -> None:
    thought, said = "<think>CANARY</think>", "Aged 74.  The patient\u2019s MMSE is\n25, with mild hippocampal and "
    text = f"{thought}\n\n{said}entorhinal atrophy.\n\nSo."
    one = example_of(task, text)
    assert [(part.text, part.claims) for part in one.passages] == [
        ("Aged 74.  The patient\u2019s ", ()),
        ("MMSE is\n25", (0,)),
        (", with ", ()),
        ("mild hippocampal and entorhinal atrophy", (1, 2)),
        (".\n\nSo.", ()),
    ]
    on_mmse, both = "out of 30 on the Mini-Mental State Examination (MMSE)", "mild hippocampal and entorhinal atrophy"
    assert [(claim.said, claim.claim, claim.evidence, claim.verdict) for claim in one.claims] == [
        ("MMSE is 25", f"scored 25 {on_mmse}", f"scored 24 {on_mmse}", "contradicted"),
        (both, "Mild hippocampal atrophy", "Severe hippocampal atrophy", "contradicted"),
        (both, "Mild entorhinal atrophy", None, "not in evidence"),
    ]


def test_page_says_in_words_what_is_marked(task: DiagnosisTask) -> None:
    text = "<b>Mild hippocampal atrophy</b> & no temporal atrophy in a <script>man</script>."
    rows = [row("AD", "diagnose", CLAIMS, text=text, predicted="NC"), row("NC", "rationalize", PARSE, text="")]
    page = re.sub(r"\s+", " ", page_of(selection_of(task, rows, examples=1)))
    mild, severe = "Mild hippocampal atrophy", "Severe hippocampal atrophy"
    nothing = "not in evidence: the evidence says nothing of it"
    assert f'&lt;b&gt;<mark title="contradicted: {severe}">{mild}</mark><sup>1</sup>&lt;/b&gt; &amp; ' in page
    assert f'<mark title="{nothing}">no temporal atrophy</mark><sup>2</sup> in a &lt;script&gt;' in page
    plain = html.unescape(re.sub(r"</?(q|strong)>", "", page))
    for words in (
        f"<li>{mild}: contradicted; the evidence says {severe}.</li>",
        "<li>no temporal atrophy: not in evidence; the evidence says nothing of it.</li>",
        "<li>man claims is a man: not in evidence; the evidence says nothing of it.</li>",
        "Ask: diagnose. Recorded diagnosis: AD. Stated diagnosis: NC.",
        "Ask: rationalize. Recorded diagnosis: NC. The prompt told it.",
    ):
        assert words in plain
    assert page.count("No text.") == 1 and "<script>" not in page


def test_long_answers_are_cut_and_their_claims_are_not(task: DiagnosisTask) -> None:
    one = example_of(task, "An MMSE of 25. " + "Words. " * 200 + "Mild hippocampal atrophy.")
    shown = "".join(part.text for part in one.passages)
    assert len(shown) == LONGEST_ANSWER and shown.endswith("\u2026")
    assert [part.claims for part in one.passages if part.claims] == [(0,)]
    assert [claim.said for claim in one.claims] == ["MMSE of 25", "Mild hippocampal atrophy"]
    assert example_of(task, "").passages == ()


PIECES = ["MMSE", "of", "25", "mild", "hippocampal", "atrophy", ".", "\n", "  ", "\u00a0", "\u2019", "x"]


@given(words=st.lists(st.sampled_from(PIECES)))
def test_passages_are_the_text(task: DiagnosisTask, words: list[str]) -> None:
    text = " ".join(words)
    one = example_of(task, text)
    assert "".join(part.text for part in one.passages) == text.strip()
    marked = [place for part in one.passages for place in part.claims]
    assert marked == list(range(len(one.claims)))


def test_selection_of_a_run_in_batches(task: DiagnosisTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(str(tmp_path))
    said = [one.model_copy(update={"text": "CANARY-TEXT: an MMSE of 25."}) for one in rows()]
    keys = {(one.patient_id, one.visit_id, one.split): one.label for one in said}
    described = [
        FindingsRow(patient_id=p, visit_id=v, split=s, label=label, description=describe_evidence(EVIDENCE, task))
        for (p, v, s), label in keys.items()
    ]
    run.write_table("rationales", to_table(said, RATIONALES))
    run.write_table("findings", to_table(described, FINDINGS))
    monkeypatch.setattr(runs, "ROWS_TOGETHER", 2)  # visits go on in the next batch
    settings = EvaluationConfig(resamples=200, seed=1)
    found = run_selection(run, task, settings)
    assert found == selection_of(task, said, settings.rejected_examples)
    assert all(claim.evidence for one in found for example in one.examples for claim in example.claims)
    shown = page_of(found)
    assert "CANARY-" not in shown.replace("CANARY-TEXT", "") and shown.count("CANARY-TEXT") == 5
    without = run_selection(run, task, EvaluationConfig(resamples=200, seed=1, rejected_examples=0))
    assert "CANARY" not in page_of(without) and "CANARY" not in without[0].model_dump_json()
