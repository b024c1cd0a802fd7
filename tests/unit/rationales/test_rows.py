"""From an ask to a prompt, and from a model's text to a row that says whether it may be trained on."""

from __future__ import annotations

import math
import pickle
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.config.rationales import LengthBounds
from clinical_reasoner.config.student import Inputs
from clinical_reasoner.evidence.claims import ClaimCounts
from clinical_reasoner.evidence.description import Evidence, describe_evidence, seen_description
from clinical_reasoner.llm.answers import Answer, ParseFailure, TokenLogprobs
from clinical_reasoner.llm.generation import Generation
from clinical_reasoner.llm.prompting import PROMPT_VERSION, Exemplar, render_messages
from clinical_reasoner.rationales.exemplars import ExemplarChoice
from clinical_reasoner.rationales.rows import AskRenderer, RationaleFinisher, reject_reason
from clinical_reasoner.records import RATIONALES, Ask, RationaleRow, to_table
from clinical_reasoner.task import DiagnosisTask
from tests.unit.conftest import always

EVIDENCE = Evidence({"sex": "female", "mmse": "24"}, {"hippocampal_atrophy": "Severe"})
AGAINST = "argues against its own diagnosis"
MISSED = "diagnosis: another one than the recorded"
GOOD = "An MMSE of 24 with severe hippocampal atrophy."
LETTERS: TokenLogprobs = [("Diagnosis: (", {}), ("B", {"A": math.log(0.2), "B": math.log(0.6), "C": math.log(0.2)})]


@pytest.fixture
def renderer(task: DiagnosisTask, exemplars: tuple[Exemplar, ...]) -> AskRenderer:
    return AskRenderer(task, always(exemplars))


def row(task: DiagnosisTask, ask: Ask) -> dict[str, Any]:
    return {
        "row_id": f"p|bl|{ask}|0",
        "patient_id": "p",
        "visit_id": "bl",
        "split": "test",
        "label": "AD",
        "description": describe_evidence(EVIDENCE, task),
        "ask": ask,
        "sample": 0,
        "seed": 5,
    }


def generation(text: str, error: str | None = None) -> Generation:
    return Generation(text, LETTERS, prompt_tokens=90, output_tokens=12, error=error)


def finish(renderer: AskRenderer, ask: Ask, text: str, error: str | None = None) -> RationaleRow:
    finisher = RationaleFinisher(renderer, "teacher-1")
    return RationaleRow.model_validate(finisher(row(renderer.task, ask), generation(text, error)))


@pytest.mark.parametrize(
    ("ask", "shots"),
    [("rationalize", 3), ("diagnose", 3), ("diagnose_zero_shot", 0), ("diagnose_label_first", 3), ("direct", 0)],
)
def test_prompt_of_an_ask(renderer: AskRenderer, ask: Ask, shots: int) -> None:
    one = row(renderer.task, ask)
    expected = render_messages(
        ask,
        one["description"],
        renderer.task,
        exemplars=renderer.exemplars.pool[:shots],
        label="AD" if ask == "rationalize" else None,
    )
    assert renderer(one) == expected
    assert len(expected) == 2 + 2 * shots
    finished = finish(renderer, ask, GOOD)
    assert finished.shots == shots
    assert finished.exemplars == tuple(one.name for one in renderer.exemplars.pool)[:shots]


@pytest.mark.parametrize(("inputs", "described"), [("image", False), ("both", True)])
def test_prompt_of_a_model_that_sees_the_picture(
    renderer: AskRenderer, tmp_path: Path, inputs: Inputs, described: bool
) -> None:
    (tmp_path / "slices").mkdir()
    (tmp_path / "slices/p.png").write_bytes(b"a picture")
    one = row(renderer.task, "diagnose") | {"picture_path": "slices/p.png"}
    messages = replace(renderer, inputs=inputs, pictures=str(tmp_path))(one)
    assert messages[1]["content"][0]["image_url"]["url"].endswith(b64encode(b"a picture").decode())
    asked = messages[-1]["content"][-1]["text"]
    assert asked == seen_description(one["description"], described, renderer.task)
    assert ("Severe hippocampal atrophy" in asked) == described
    with pytest.raises(ValueError, match="needs the run folder that holds them"):
        replace(renderer, inputs=inputs)(one)


def test_tokens_of_the_teacher_are_kept_where_there_are_some(renderer: AskRenderer) -> None:
    finisher = RationaleFinisher(renderer, "teacher-1")
    kept = replace(generation(GOOD), token_ids=(7, 9), candidates=({7: -0.1, 8: -2.5}, {9: -0.2}))
    made = finisher(row(renderer.task, "rationalize"), kept)
    assert made["token_ids"] == (7, 9)
    assert made["candidates"] == ({"ids": (7, 8), "logprobs": (-0.1, -2.5)}, {"ids": (9,), "logprobs": (-0.2,)})
    (read,) = to_table([RationaleRow.model_validate(made)], RATIONALES).to_pylist()
    assert read["candidates"][0] == {"ids": [7, 8], "logprobs": [-0.1, -2.5]}
    without = finish(renderer, "rationalize", GOOD)
    assert (without.token_ids, without.candidates) == (None, None)


def test_asks_and_samples_of_a_visit_have_the_same_exemplars(
    task: DiagnosisTask, exemplars: tuple[Exemplar, ...]
) -> None:
    renderer = AskRenderer(task, ExemplarChoice(exemplars, 2, "random", "file", seed=0))
    one = {**row(task, "diagnose"), "visit_id": "m06"}
    chosen = renderer.exemplars_of(one)
    other_rows = [{**one, "sample": 1, "row_id": "p|m06|diagnose|1", "seed": 6}, {**one, "ask": "rationalize"}]
    assert [renderer.exemplars_of(other) for other in other_rows] == [chosen, chosen]
    visits = [{**one, "visit_id": f"m{month}"} for month in range(30)]
    assert len({renderer.exemplars_of(visit) for visit in visits}) == 3


def test_length_is_asked_of_every_ask_that_gives_a_rationale(renderer: AskRenderer) -> None:
    brief = replace(renderer, words="50 to 120")
    for ask, kind in ASK_KINDS.items():
        open_length, asked = renderer(row(renderer.task, ask)), brief(row(renderer.task, ask))
        sentence = " Write the rationale in 50 to 120 words." if kind.gives_rationale else ""
        assert asked[0]["content"] == open_length[0]["content"] + sentence
        assert asked[1:] == open_length[1:]


def test_recorded_diagnosis_reaches_no_prompt_but_that_of_rationalize(renderer: AskRenderer) -> None:
    for ask in (ask for ask, kind in ASK_KINDS.items() if not kind.told_label):
        prompts = [renderer({**row(renderer.task, ask), "label": label}) for label in renderer.task.label_names]
        assert prompts[0] == prompts[1] == prompts[2]


@pytest.mark.parametrize(
    ("error", "answer", "claims", "reason"),
    [
        (None, Answer("r", "AD"), ClaimCounts(3), None),
        (None, Answer("r", None), ClaimCounts(1), None),
        (None, Answer("r", None), ClaimCounts(), "claims: none about the patient"),
        (None, Answer(None, "AD"), ClaimCounts(), None),
        (None, Answer("r", "AD"), ClaimCounts(3, contradicted=1), "claims: contradicts the evidence"),
        (None, Answer("r", "AD"), ClaimCounts(3, 0, not_in_evidence=1), "claims: states what is not in the evidence"),
        (None, Answer("r", "AD"), ClaimCounts(3, 1, 1), "claims: contradicts the evidence"),
        (None, ParseFailure("no diagnosis line"), ClaimCounts(3, 1), "parse: no diagnosis line"),
        ("ValueError", ParseFailure("empty answer"), ClaimCounts(), "engine: ValueError"),
        ("ValueError", Answer("r", "AD"), ClaimCounts(3), "engine: ValueError"),
    ],
)
def test_why_a_rationale_is_rejected(
    error: str | None, answer: Answer | ParseFailure, claims: ClaimCounts, reason: str | None
) -> None:
    assert reject_reason(generation("r", error), answer, claims) == reason


def test_text_that_was_cut_is_not_trained_on() -> None:
    cut = replace(generation("r"), cut=True)
    reason = "cut: at sampling.max_tokens or engine.max_model_len"
    assert reject_reason(cut, Answer("r", "AD"), ClaimCounts(3)) == reason


def test_accepted_rationale(renderer: AskRenderer) -> None:
    finished = finish(renderer, "rationalize", f"{GOOD}\n\nDiagnosis: (A) Alzheimer's disease")
    assert finished == RationaleRow(
        row_id="p|bl|rationalize|0",
        patient_id="p",
        visit_id="bl",
        split="test",
        label="AD",
        ask="rationalize",
        sample=0,
        model="teacher-1",
        prompt_version=PROMPT_VERSION,
        shots=3,
        exemplars=("example_ad", "example_mci", "example_nc"),
        seed=5,
        text=f"{GOOD}\n\nDiagnosis: (A) Alzheimer's disease",
        rationale=GOOD,
        predicted=None,
        probabilities=None,
        claims_supported=2,
        claims_contradicted=0,
        claims_not_in_evidence=0,
        accepted=True,
        reject_reason=None,
        prompt_tokens=90,
        output_tokens=12,
    )


@pytest.mark.parametrize("ask", ["diagnose", "direct"])
def test_diagnosis_with_probabilities(renderer: AskRenderer, ask: Ask) -> None:
    finished = finish(renderer, ask, f"{GOOD}\n\nDiagnosis: (B) mild cognitive impairment")
    assert finished.predicted == "MCI"
    assert finished.rationale == (GOOD if ask == "diagnose" else None)
    assert finished.probabilities == pytest.approx((0.2, 0.6, 0.2))


@pytest.mark.parametrize(
    ("text", "error", "reason", "counts"),
    [
        (GOOD.replace("severe", "mild"), None, "claims: contradicts the evidence", (1, 1, 0)),
        (f"{GOOD} She is 74 years old.", None, "claims: states what is not in the evidence", (3, 0, 1)),
        ("A man with an MMSE of 24.", None, "claims: contradicts the evidence", (1, 1, 0)),
        (f"{GOOD} As the diagnosis is AD, this fits.", None, "checks: restates the diagnosis it was told", (2, 0, 0)),
        (f"{GOOD} This rules out Alzheimer's disease.", None, f"checks: {AGAINST}", (2, 0, 0)),
        (f"{GOOD} This is mild cognitive impairment.", None, "checks: concludes another diagnosis", (2, 0, 0)),
        (f"{GOOD} There is also", None, "checks: does not end a sentence", (2, 0, 0)),
        ("Severe hippocampal atrophy.", None, "checks: too short", (1, 0, 0)),
        ("I cannot provide a diagnosis for this patient.", None, "checks: refuses to answer", (0, 0, 0)),
        ("", None, "parse: empty answer", (0, 0, 0)),
        ("", "ValueError", "engine: ValueError", (0, 0, 0)),
    ],
)
def test_rejected_rationale_keeps_its_text_and_says_why(
    renderer: AskRenderer, text: str, error: str | None, reason: str, counts: tuple[int, int, int]
) -> None:
    finished = finish(renderer, "rationalize", text, error)
    assert not finished.accepted
    assert finished.reject_reason == reason
    assert finished.text == text
    found = (finished.claims_supported, finished.claims_contradicted, finished.claims_not_in_evidence)
    assert found == counts


def test_refusal_is_named_also_where_no_answer_can_be_read(renderer: AskRenderer) -> None:
    finished = finish(renderer, "diagnose", "I'm sorry, but I can't diagnose this patient.")
    assert (finished.predicted, finished.reject_reason) == (None, "checks: refuses to answer")


def test_rationale_is_held_against_its_own_answer_and_not_against_the_record(renderer: AskRenderer) -> None:
    text = f"{GOOD} This makes mild cognitive impairment unlikely."
    assert finish(renderer, "diagnose", f"{text}\n\nDiagnosis: (B)").reject_reason == f"checks: {AGAINST}"
    assert finish(renderer, "diagnose", f"{text}\n\nDiagnosis: (A)").accepted


def test_direct_answer_has_no_rationale_to_check(renderer: AskRenderer) -> None:
    assert finish(renderer, "direct", "Diagnosis: (A)").accepted
    assert finish(renderer, "direct", "Diagnosis: (B)").reject_reason == MISSED


@pytest.mark.parametrize(
    ("answer", "recorded", "reason"),
    [
        (Answer("r", "AD"), "AD", None),
        (Answer("r", "MCI"), "AD", MISSED),
        (Answer(None, "MCI"), "AD", MISSED),
        (Answer("r", "MCI"), None, None),
        (Answer("r", None), "AD", None),
    ],
    ids=["hit", "missed", "missed, alone", "not recorded", "was told"],
)
def test_a_missed_diagnosis_is_a_reason(answer: Answer, recorded: str | None, reason: str | None) -> None:
    assert reject_reason(generation("r"), answer, ClaimCounts(3), recorded=recorded) == reason


def test_a_graver_reason_than_a_missed_diagnosis_comes_first() -> None:
    missed = Answer("r", "MCI")
    against = reject_reason(generation("r"), missed, ClaimCounts(3, contradicted=1), recorded="AD")
    assert against == "claims: contradicts the evidence"


def test_thinking_stands_apart_and_is_not_checked(renderer: AskRenderer) -> None:
    thought = "He is 99 years old."
    finished = finish(renderer, "rationalize", f"<think>{thought}</think>\n{GOOD}")
    assert (finished.thinking, finished.rationale, finished.accepted) == (thought, GOOD, True)
    assert finished.text == f"<think>{thought}</think>\n{GOOD}"
    assert finished.claims_not_in_evidence == 0
    assert finish(renderer, "rationalize", GOOD).thinking is None


def test_bounds_of_the_length_are_those_of_the_run(renderer: AskRenderer) -> None:
    finisher = RationaleFinisher(renderer, "teacher-1", accepted_words=LengthBounds(min_words=2, max_words=7))
    finished = finisher(row(renderer.task, "rationalize"), generation(GOOD))
    assert finished["reject_reason"] == "checks: too long"


def test_diagnose_that_cannot_be_read_is_no_diagnosis(renderer: AskRenderer) -> None:
    finished = finish(renderer, "diagnose", GOOD)
    assert (finished.predicted, finished.rationale, finished.accepted) == (None, None, False)
    assert finished.reject_reason == "parse: no diagnosis line"


def test_label_first_is_read_from_the_first_diagnosis_line(renderer: AskRenderer) -> None:
    finished = finish(renderer, "diagnose_label_first", f"Diagnosis: (B) mild cognitive impairment\n\n{GOOD}")
    assert (finished.predicted, finished.rationale, finished.reject_reason) == ("MCI", GOOD, MISSED)
    assert finished.probabilities == pytest.approx((0.2, 0.6, 0.2))
    late = finish(renderer, "diagnose_label_first", f"{GOOD}\n\nDiagnosis: (B) mild cognitive impairment")
    assert late.reject_reason == "parse: no rationale after the diagnosis"


def test_rows_fit_the_table_and_workers_can_be_sent(renderer: AskRenderer) -> None:
    finisher = RationaleFinisher(renderer, "teacher-1")
    sent = pickle.loads(pickle.dumps(finisher))
    for ask in ASK_KINDS:
        one = row(renderer.task, ask)
        assert sent.renderer(one) == renderer(one)
        made = sent(one, generation(GOOD))
        assert made == finisher(one, generation(GOOD))
        assert list(made) == RATIONALES.names
        assert to_table([RationaleRow.model_validate(made)], RATIONALES).num_rows == 1
