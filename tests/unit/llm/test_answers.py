"""Raw answers as models write them: a diagnosis, or a reason why there is none. Nothing is guessed, nothing raises."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.llm.answers import (
    Answer,
    ParseFailure,
    TokenLogprobs,
    option_probabilities,
    parse_answer,
    thinking,
    without_thinking,
)
from clinical_reasoner.llm.prompting import render_answer
from clinical_reasoner.records import Ask
from clinical_reasoner.task import DiagnosisTask

NO_LINE = "no diagnosis line"
NO_OPTION = "diagnosis is not one of the options"
OTHER_LETTER = "option letter is not one of the options"
DISAGREE = "option letter and diagnosis disagree"
SEVERAL = "more than one option"
CUT = "thinking was cut"


@pytest.mark.parametrize(
    ("last_line", "label"),
    [
        ("Diagnosis: (B) mild cognitive impairment", "MCI"),
        ("**Diagnosis:** (B) mild cognitive impairment", "MCI"),
        ("**Diagnosis: (B) mild cognitive impairment**", "MCI"),
        ("## Diagnosis: **(B)**", "MCI"),
        ("- Diagnosis: B", "MCI"),
        ("> *Diagnosis*: (B) Mild Cognitive Impairment.", "MCI"),
        ("DIAGNOSIS: (C) NORMAL COGNITION", "NC"),
        ("Final answer: C", "NC"),
        ("Final Diagnosis: C.", "NC"),
        ("answer: (c)", "NC"),
        ("Diagnosis is (A)", "AD"),
        ("Diagnosis: A", "AD"),
        ("Diagnosis: A)", "AD"),
        ("Diagnosis: A.", "AD"),
        ("Diagnosis: A: Alzheimer's disease", "AD"),
        ("Diagnosis: A Alzheimer's disease", "AD"),
        ("Diagnosis: Alzheimer\u2019s disease", "AD"),
        ("Diagnosis: Alzheimer's disease (AD)", "AD"),
        ("Diagnosis: mild cognitive impairment", "MCI"),
        ("Diagnosis: MCI", "MCI"),
        ("Diagnosis: cognitively normal", "NC"),
        ("Diagnosis:\n(B) mild cognitive impairment", "MCI"),
        ("Diagnosis: (B) mild cognitive impairment\n\n", "MCI"),
        ("Diagnosis: (B) mild cognitive impairment, because of the MMSE", "MCI"),
        ("Diagnosis: (B) because of the MMSE", "MCI"),
        ("Diagnosis: (B) mild cognitive impairment\n\nThis is not medical advice.", "MCI"),
        ("Diagnosis: (A) Alzheimer's disease\nDiagnosis: (B) mild cognitive impairment", "MCI"),
        ("Diagnosis: (A) Alzheimer's disease\r\n", "AD"),
        # Letter and name in either order, or called an option.
        ("Diagnosis: Alzheimer's disease (A)", "AD"),
        ("Diagnosis: **Alzheimer\u2019s disease** (A).", "AD"),
        ("Diagnosis: mild cognitive impairment (MCI) (B)", "MCI"),
        ("Diagnosis: mild cognitive impairment, option B", "MCI"),
        ("Diagnosis: normal cognition (option C)", "NC"),
        ("Diagnosis: normal cognition - C", "NC"),
        ("Diagnosis: A (Alzheimer's disease)", "AD"),
        ("Diagnosis: (A) \u2013 Alzheimer's disease", "AD"),
        ("Diagnosis: option B", "MCI"),
        ("Diagnosis: option B because of the MMSE", "MCI"),
        ("Answer: Option (C)", "NC"),
        ("Answer: Option (A) Alzheimer's disease", "AD"),
        ("Final answer: B.", "MCI"),
        ("The diagnosis is (A) Alzheimer's disease", "AD"),
        ("The diagnosis is Alzheimer's disease (A).", "AD"),
        ("The most likely diagnosis is **mild cognitive impairment**.", "MCI"),
        ("The correct answer is option C.", "NC"),
        ("**The final answer is: (B)**", "MCI"),
        ("The diagnosis is (A) Alzheimer's disease\n\nDiagnosis: (B)", "MCI"),
        ("Diagnosis: (B)\n\nThe diagnosis is hard to make.", "MCI"),
        # Another option's name or letter is not always offered.
        ("Diagnosis: (B) mild cognitive impairment, possibly due to Alzheimer's disease", "MCI"),
        ("Diagnosis: (B) mild cognitive impairment rather than dementia", "MCI"),
        ("Diagnosis: (B) mild cognitive impairment, with or without dementia", "MCI"),
        ("Diagnosis: (B) mild cognitive impairment. A low MMSE and normal ventricles speak for it.", "MCI"),
        ("Diagnosis: (C) normal cognition, or cognitively normal", "NC"),
    ],
)
@pytest.mark.parametrize("ask", ["diagnose", "direct"])
def test_answers_that_name_one_option(task: DiagnosisTask, last_line: str, label: str, ask: Ask) -> None:
    answer = parse_answer(f"The MMSE score is low.\n\n{last_line}", ask, task)
    assert isinstance(answer, Answer), answer
    assert answer.label == label
    assert answer.rationale is None if ask == "direct" else str(answer.rationale).startswith("The MMSE score is low.")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty answer"),
        (" \n\t", "empty answer"),
        ("The diagnosis is unclear", NO_LINE),
        ("The MMSE score is low, which fits Alzheimer's disease.", NO_LINE),
        ("Low MMSE.\nDiagnosis:", NO_LINE),
        ("Low MMSE.\nDiagnosis: unclear", NO_OPTION),
        ("Low MMSE.\nDiagnosis: not (A)", NO_OPTION),
        ("Low MMSE.\nDiagnosis: A/B", NO_OPTION),
        ("Low MMSE.\nDiagnosis: ???", NO_OPTION),
        ("Low MMSE.\nDiagnosis: (D) delirium", OTHER_LETTER),
        ("Low MMSE.\nDiagnosis: E", OTHER_LETTER),
        ("Low MMSE.\nDiagnosis: (A) normal cognition", DISAGREE),
        ("Low MMSE.\nDiagnosis: C, mild cognitive impairment", DISAGREE),
        ("Low MMSE.\nDiagnosis: (A) - normal cognition", DISAGREE),
        ("Low MMSE.\nDiagnosis: A (normal cognition)", DISAGREE),
        ("Low MMSE.\nDiagnosis: Alzheimer's disease (B)", DISAGREE),
        ("Low MMSE.\nDiagnosis: normal cognition, option A", DISAGREE),
        ("Low MMSE.\nDiagnosis: option C, mild cognitive impairment", DISAGREE),
        ("Low MMSE.\nThe diagnosis is (A) normal cognition.", DISAGREE),
        ("Low MMSE.\nDiagnosis: Alzheimer's disease (D)", OTHER_LETTER),
        ("Low MMSE.\nDiagnosis: option D", OTHER_LETTER),
        ("Low MMSE.\nDiagnosis: not Alzheimer's disease (A)", NO_OPTION),
        ("Low MMSE.\nDiagnosis: Alzheimer's disease (A) is unlikely", NO_OPTION),
        ("Low MMSE.\nDiagnosis: Alzheimer's disease or mild cognitive impairment (B)", NO_OPTION),
        ("Low MMSE.\nDiagnosis: lack of vitamin (B)", NO_OPTION),
        ("Low MMSE.\nDiagnosis: options A and B", NO_OPTION),
        ("Low MMSE.\nDiagnosis: option A and option B", SEVERAL),
        ("Low MMSE.\nDiagnosis: option A or B", SEVERAL),
        ("Low MMSE.\nDiagnosis: Alzheimer's disease (A) and normal cognition (C)", SEVERAL),
        # Sentences of a rationale.
        ("Low MMSE.\nThe diagnosis is Alzheimer's disease or mild cognitive impairment.", NO_LINE),
        ("Low MMSE.\nThe diagnosis is (A) or (B).", NO_LINE),
        ("Low MMSE.\nThe diagnosis is a\nmatter of weeks.", NO_LINE),
        ("Low MMSE.\nThe diagnosis is mild", NO_LINE),
        # "A" is an option here and an article there.
        ("Low MMSE.\nDiagnosis: A healthy person", NO_OPTION),
        ("Low MMSE.\nFinal answer: A form of dementia cannot be excluded", NO_OPTION),
        ("Low MMSE.\nDiagnosis: A or B", NO_OPTION),
        ("Low MMSE.\nDiagnosis: (A) or (B)", SEVERAL),
        ("Low MMSE.\nDiagnosis: (A) Alzheimer's disease or (B) mild cognitive impairment", SEVERAL),
        ("Low MMSE.\nDiagnosis: (B)/(A)", SEVERAL),
        ("Low MMSE.\nDiagnosis: (A) Alzheimer's disease or mild cognitive impairment", SEVERAL),
        ("Low MMSE.\nDiagnosis: (A) Alzheimer's disease or a mild cognitive impairment", SEVERAL),
        ("Low MMSE.\nDiagnosis: (A) Alzheimer's disease/MCI", SEVERAL),
        ("Low MMSE.\nDiagnosis: (A) Alzheimer's disease, perhaps MCI", SEVERAL),
        ("Low MMSE.\nDiagnosis: (B) MCI versus normal", SEVERAL),
        ("Low MMSE.\nDiagnosis: (A) or possibly B", SEVERAL),
        ("Low MMSE.\nDiagnosis: (A) or B", SEVERAL),
        ("Low MMSE.\nDiagnosis: (A)/B", SEVERAL),
        ("<think>Low MMSE.</think>", "empty answer"),
        ("<think>Low MMSE.\nDiagnosis: (A)", CUT),
        ("<think>Hm.</think>Low MMSE.\nDiagnosis: (A)\n<think>Or", CUT),
        ("<think>Low MMSE.\nDiagnosis: (A)\n</think>\nI cannot say.", NO_LINE),
    ],
)
def test_answers_that_do_not(task: DiagnosisTask, text: str, reason: str) -> None:
    for ask in ("diagnose", "direct"):
        assert parse_answer(text, ask, task) == ParseFailure(reason)


def test_rationale_is_what_stands_before_the_last_diagnosis(task: DiagnosisTask) -> None:
    text = (
        "Low MMSE.\n\nDiagnosis: (B) mild cognitive impairment\n\nOr rather:\n\n**Diagnosis:** (A) Alzheimer's disease"
    )
    assert parse_answer(text, "diagnose", task) == Answer(
        "Low MMSE.\n\nDiagnosis: (B) mild cognitive impairment\n\nOr rather:", "AD"
    )
    bare = "Diagnosis: (A) Alzheimer's disease"
    assert parse_answer(bare, "diagnose", task) == ParseFailure("no rationale before the diagnosis")
    assert parse_answer(bare, "direct", task) == Answer(None, "AD")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Low MMSE.", Answer("Low MMSE.", None)),
        ("\n Low MMSE. \n", Answer("Low MMSE.", None)),
        ("Low MMSE.\n\nDiagnosis: (A) Alzheimer's disease", Answer("Low MMSE.", None)),
        ("Low MMSE.\nAnswer: (A)\nAnd atrophy.", Answer("Low MMSE.\nAnswer: (A)\nAnd atrophy.", None)),
        ("Low MMSE.\n\nThe diagnosis is (A) Alzheimer's disease.", Answer("Low MMSE.", None)),
        (
            "Low MMSE.\nThe diagnosis is Alzheimer's disease because of it.",
            Answer("Low MMSE.\nThe diagnosis is Alzheimer's disease because of it.", None),
        ),
        ("Diagnosis: (A) Alzheimer's disease", ParseFailure("no rationale")),
        ("", ParseFailure("empty answer")),
    ],
)
def test_rationale_for_a_known_diagnosis(task: DiagnosisTask, text: str, answer: Answer | ParseFailure) -> None:
    assert parse_answer(text, "rationalize", task) == answer


@pytest.mark.parametrize(
    "thinking",
    [
        "<think>Is it (B)?\nDiagnosis: (B)\n</think>\n\n",
        "<think>\n\n</think>",
        # The prompt ended in the opening tag.
        "Is it (B)?\nDiagnosis: (B)</think>",
        "<think>one</think>\n<think>two</think>\n",
    ],
)
def test_thinking_is_no_part_of_an_answer(task: DiagnosisTask, thinking: str) -> None:
    answer = "Low MMSE.\n\nDiagnosis: (A) Alzheimer's disease"
    assert parse_answer(thinking + answer, "diagnose", task) == Answer("Low MMSE.", "AD")
    assert parse_answer(thinking + answer, "rationalize", task) == Answer("Low MMSE.", None)
    assert parse_answer(f"{thinking}Diagnosis: (A)", "direct", task) == Answer(None, "AD")
    assert parse_answer(f"{thinking}Diagnosis: (A)", "diagnose", task) == ParseFailure(
        "no rationale before the diagnosis"
    )
    assert without_thinking(thinking + answer).strip() == answer


def test_long_lines_of_separators_are_read_in_no_time(task: DiagnosisTask) -> None:
    for separator in ("-", " -", "(", ": "):
        text = f"Diagnosis: mild{separator * 10_000}impairment"
        assert parse_answer(text, "direct", task) == ParseFailure(NO_OPTION)


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("Diagnosis: (A)", None),
        ("", None),
        ("<think>Low MMSE.</think>Diagnosis: (A)", "Low MMSE."),
        ("<think>\n Low MMSE.\n\n</think>\n\nDiagnosis: (A)", "Low MMSE."),
        ("Low MMSE.</think>Diagnosis: (A)", "Low MMSE."),
        ("<think>First.</think>So.<think>Then.</think>Diagnosis: (A)", "First.\n\nThen."),
        ("<think>\n\n</think>Diagnosis: (A)", None),
        ("<think> </think><think>Then.</think>", "Then."),
        ("<think>Cut", None),
        ("<think>First.</think><think>Cut", "First."),
    ],
)
def test_thinking_by_itself(text: str, thought: str | None) -> None:
    assert thinking(text) == thought


def test_thinking_that_was_cut_is_no_rationale(task: DiagnosisTask) -> None:
    assert parse_answer("<think>Low MMSE, so", "rationalize", task) == ParseFailure(CUT)


@given(text=st.text(), ask=st.sampled_from(list(ASK_KINDS)))
def test_any_text_is_an_answer_or_a_failure(task: DiagnosisTask, text: str, ask: Ask) -> None:
    for raw in (text, f"{text}\nDiagnosis: {text}", f"{text} Diagnosis: ({text}) {text}", f"Answer is {text}"):
        answer = parse_answer(raw, ask, task)
        if isinstance(answer, ParseFailure):
            assert answer.reason
            assert len(answer.reason) < 60
        else:
            assert (answer.label in task.label_names) == ASK_KINDS[ask].gives_label
            assert bool(answer.rationale) == ASK_KINDS[ask].gives_rationale


# A rationale that ends in a line of asterisks loses that line, as the markup of the diagnosis would.
rationales = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="*#>_-"), min_size=1).filter(str.strip)


@given(rationale=rationales, data=st.data())
def test_rendered_answer_is_read_back(task: DiagnosisTask, rationale: str, data: st.DataObject) -> None:
    label = data.draw(st.sampled_from(task.label_names))
    written = {ask: render_answer(ask, rationale, label, task) for ask in ASK_KINDS}
    for ask in ("diagnose_zero_shot", "diagnose_label_first"):
        assert parse_answer(written[ask], ask, task) == Answer(rationale.strip(), label)
    assert parse_answer(written["diagnose"], "diagnose", task) == Answer(rationale.strip(), label)
    assert parse_answer(written["direct"], "direct", task) == Answer(None, label)
    if "iagnosis" not in rationale.lower() and "nswer" not in rationale.lower():
        assert parse_answer(written["rationalize"], "rationalize", task) == Answer(rationale.strip(), None)


ABC = {"A": math.log(0.2), "B": math.log(0.5), "C": math.log(0.1), "The": math.log(0.2)}
EXPECTED = (0.25, 0.625, 0.125)


@pytest.mark.parametrize(
    "texts",
    [
        ["Low", " MMSE", ".\n\n", "Diagnosis", ":", " (", "B", ")", " mild", " cognitive"],
        ["Diagnosis:", " ", "B"],
        ["**", "Diagnosis", ":**", " (", "B", ")"],
        ["Final", " answer", " is", " (", "B", ")."],
        ["D", "iag", "nosis", ":", " (", "B", ")", "<|end|>"],
        ["Diagnosis", ":", " option", " ", "B", "."],
        ["Answer", ":", " Option", " (", "B", ")", " mild", " cognitive", " impairment"],
        ["The", " diagnosis", " is", " (", "B", ")", " MCI", ".", "<|end|>"],
        # the word stands earlier, and so does a letter
        ["The", " diagnosis", " is", " hard", ".", " Vitamin", " B", "12", ".\n", "Diagnosis", ":", " (", "B", ")"],
    ],
)
def test_letter_is_a_token_of_its_own(task: DiagnosisTask, texts: Sequence[str]) -> None:
    logprobs = [(text, ABC if text == "B" else {text: 0.0}) for text in texts]
    assert option_probabilities(logprobs, task) == pytest.approx(EXPECTED)


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        (" {}", ["Diagnosis", ":", " B"]),
        (" ({}", ["Diagnosis", ":", " (B", ")", " mild"]),
        ("({}", ["Diagnosis", ":", " ", "(B", ")"]),
        ("({})", ["Diagnosis", ":", " ", "(B)", " mild"]),
        ("{})", ["Diagnosis", ":", " (", "B)", " mild"]),
    ],
)
def test_letter_with_its_bracket_in_one_token(task: DiagnosisTask, form: str, texts: Sequence[str]) -> None:
    written = form.format("B")
    candidates = {form.format(letter): ABC[letter] for letter in "ABC"} | {"The": ABC["The"]}
    logprobs = [(text, candidates if text == written else {text: 0.0}) for text in texts]
    assert option_probabilities(logprobs, task) == pytest.approx(EXPECTED)


def test_spellings_of_one_option_add_up(task: DiagnosisTask) -> None:
    candidates = {
        "A": math.log(0.1),
        " A": math.log(0.1),
        "(B": math.log(0.4),
        "Bo": math.log(0.3),
        "CN": math.log(0.1),
    }
    logprobs: TokenLogprobs = [("Diagnosis:", {}), (" A", candidates)]
    assert option_probabilities(logprobs, task) == pytest.approx((1 / 3, 2 / 3, 0.0))


def test_the_last_diagnosis_counts(task: DiagnosisTask) -> None:
    logprobs: TokenLogprobs = [
        ("Diagnosis:", {}),
        (" A", {" A": math.log(0.9), " B": math.log(0.1)}),
        ("\nDiagnosis:", {}),
        (" B", {" A": math.log(0.3), " B": math.log(0.6)}),
    ]
    assert option_probabilities(logprobs, task) == pytest.approx((1 / 3, 2 / 3, 0.0))


@pytest.mark.parametrize(
    "texts",
    [
        ["<think>", "Diagnosis", ":", " (", "A", ")", "\n", "</think>", "\n\n", "Diagnosis", ":", " (", "B", ")"],
        ["Or", " A", "?", "</think>", "Diagnosis", ":", " (", "B", ")", "<|end|>"],
        ["Diagnosis", ":", " (", "A", ")", "\n", "Diagnosis", ":", " (", "B", ")", ", ", "not", " (", "A", ")"],
    ],
)
def test_letter_is_that_of_the_answer_that_is_read(task: DiagnosisTask, texts: Sequence[str]) -> None:
    logprobs = [(text, ABC if text == "B" else {text: 0.0}) for text in texts]
    assert option_probabilities(logprobs, task) == pytest.approx(EXPECTED)


@pytest.mark.parametrize(
    "texts",
    [
        [],
        # The answer that is read is in words; a letter stands elsewhere.
        ["The", " diagnosis", " is", " (", "B", ")", " unlikely", ".\n", "Diagnosis", ":", " Alzheimer's disease"],
        ["Diagnosis", ":", " (", "B", ")", "\n", "Diagnosis", ":", " unclear"],
        ["Diagnosis", ":", " Alzheimer's disease", ",", " so", " the", " answer", " is", " (", "A", ")"],
        ["Low", " MMSE", ",", " diagnosis", ":", " (", "A", ")"],
        ["Diagnosis", ":", " lack", " of", " vitamin", " (", "B", ")"],
        ["The", " diagnosis", " is", " (", "B", ")", " or", " (", "C", ")"],
        ["<think>", "Diagnosis", ":", " (", "A", ")", "</think>", "I", " cannot", " say"],
        ["Low", " MMSE", "."],
        ["Diagnosis", ":", " unclear"],
        ["Diagnosis", ":", " (", "D", ")"],
        ["Vitamin", " B"],
        ["Diagnosis", ":", " mild", " cognitive", " impairment"],
        # behind the name it says nothing more
        ["Diagnosis", ":", " mild", " cognitive", " impairment", " (", "B", ")", "<|im_end|>"],
        ["Diagnosis", ":", " MCI", ", option", " ", "B", ".", "</s>", "\n"],
        # the letter is the beginning of a word
        ["Diagnosis", ":", " A", "lz", "heimer"],
        ["Diagnosis", ":", " C", "annot", " say"],
    ],
)
def test_no_letter_no_probabilities(task: DiagnosisTask, texts: Sequence[str]) -> None:
    assert option_probabilities([(text, {text: -0.1}) for text in texts], task) is None


def test_letter_without_candidates_has_no_probabilities(task: DiagnosisTask) -> None:
    assert option_probabilities([("Diagnosis: (", {}), ("B", {})], task) is None
    assert option_probabilities([("Diagnosis: (", {}), ("B", {"The": -0.1})], task) is None


@given(
    logprobs=st.lists(
        st.tuples(
            st.sampled_from(["Diagnosis", ":", " (", "A", "B", ")", " C", " is", "\n"]) | st.text(max_size=4),
            st.dictionaries(st.sampled_from(["A", "B", " C", "(A", "x"]) | st.text(max_size=3), st.floats(-50, 0)),
        ),
        max_size=20,
    )
)
def test_any_tokens_give_a_distribution_or_none(task: DiagnosisTask, logprobs: TokenLogprobs) -> None:
    probabilities = option_probabilities(logprobs, task)
    if probabilities is not None:
        assert len(probabilities) == len(task.labels)
        assert sum(probabilities) == pytest.approx(1)
