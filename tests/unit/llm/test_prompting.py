"""Prompts: fixed text first, the patient last, and the known diagnosis only where it is meant to be."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from jinja2.exceptions import TemplateNotFound

from clinical_reasoner.asks import ASK_KINDS
from clinical_reasoner.evidence.description import with_question
from clinical_reasoner.llm import prompting
from clinical_reasoner.llm.prompting import (
    Exemplar,
    Message,
    load_exemplars,
    render_answer,
    render_messages,
    with_picture,
)
from clinical_reasoner.records import Ask
from clinical_reasoner.task import DiagnosisTask, TaskError
from tests.unit.conftest import Golden

ASKS: tuple[Ask, ...] = get_args(Ask)
GOOD = {
    "patient_description": "The patient is a man.",
    "clinical_rationale": "He is well.",
    "diagnosis": "normal cognition",
}


def render(
    ask: Ask, text: str, task: DiagnosisTask, exemplars: tuple[Exemplar, ...] = (), words: str | None = None
) -> list[Message]:
    label = "AD" if ASK_KINDS[ask].told_label else None
    return render_messages(ask, with_question(text, task), task, exemplars=exemplars, label=label, words=words)


@pytest.mark.parametrize("ask", ASKS)
def test_golden_prompt(task: DiagnosisTask, exemplars: tuple[Exemplar, ...], ask: Ask, golden: Golden) -> None:
    description = "The patient is a woman. The patient scored 24 out of 30 on the Mini-Mental State Examination (MMSE)."
    shots = exemplars[:1] if ASK_KINDS[ask].uses_exemplars else ()
    messages = render(ask, description, task, shots)
    golden(f"prompt_{ask}.txt", "\n\n".join(f"[{one['role']}]\n{one['content']}" for one in messages))


@pytest.mark.parametrize("ask", [ask for ask in ASKS if ASK_KINDS[ask].gives_rationale])
def test_golden_instructions_with_a_length(task: DiagnosisTask, ask: Ask, golden: Golden) -> None:
    messages = render(ask, "The patient is a woman.", task, words="about 150")
    golden(f"prompt_{ask}_150_words.txt", messages[0]["content"])
    assert messages[1:] == render(ask, "The patient is a woman.", task)[1:]


def test_length_changes_nothing_where_no_rationale_is_asked_for(task: DiagnosisTask) -> None:
    assert render("direct", "x", task, words="about 150") == render("direct", "x", task)


def test_zero_shot_is_diagnose_without_exemplars(task: DiagnosisTask) -> None:
    assert render("diagnose_zero_shot", "x", task) == render("diagnose", "x", task)


def test_every_ask_has_its_kind_and_every_arm_is_one_asks() -> None:
    assert tuple(ASK_KINDS) == ASKS
    arms = [kind.arm for kind in ASK_KINDS.values() if kind.arm]
    assert len(set(arms)) == len(arms)
    for kind in ASK_KINDS.values():
        # What is told the label has no diagnosis of its own; what answers with one does so under a name.
        assert not (kind.told_label and kind.gives_label)
        assert kind.gives_label == bool(kind.arm) == bool(kind.title)
        assert kind.gives_label or kind.gives_rationale
        assert kind.gives_rationale or not (kind.label_first or kind.uses_exemplars)


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("shots", [0, 1, 3])
def test_everything_before_the_patient_is_the_same_for_all(
    task: DiagnosisTask, exemplars: tuple[Exemplar, ...], ask: Ask, shots: int
) -> None:
    first = render(ask, "The patient is a woman.", task, exemplars[:shots])
    second = render(ask, "A man with a long history.", task, exemplars[:shots])
    assert first[:-1] == second[:-1]
    assert "woman" in first[-1]["content"] and "long history" in second[-1]["content"]
    assert [one["role"] for one in first] == ["system", *["user", "assistant"] * shots, "user"]


@pytest.mark.parametrize("ask", ASKS)
def test_exemplar_turns_are_as_the_patient_turn_and_the_wanted_answer(
    task: DiagnosisTask, exemplars: tuple[Exemplar, ...], ask: Ask
) -> None:
    one = exemplars[1]
    messages = render(ask, "x", task, (one,))
    known = one.label if ASK_KINDS[ask].told_label else None
    assert messages[1] == render_messages(ask, one.description, task, label=known)[-1]
    assert messages[2]["content"] == render_answer(ask, one.rationale, one.label, task)
    assert (one.rationale in messages[2]["content"]) == ASK_KINDS[ask].gives_rationale


@pytest.mark.parametrize("label", ["AD", "MCI", "NC"])
def test_known_diagnosis_is_in_the_patient_turn_of_rationalize_alone(task: DiagnosisTask, label: str) -> None:
    description = with_question("The patient is a woman.", task)
    told = render_messages("rationalize", description, task, label=label)
    assert told[-1]["content"].count(task.answer_text(label)) == 2  # the option, and the diagnosis
    for other in task.label_names:
        assert told[-1]["content"].count(task.answer_text(other)) == 1 + (other == label)
        assert task.answer_text(other) not in told[0]["content"]
    for ask in (ask for ask in ASKS if not ASK_KINDS[ask].told_label):
        untold = render_messages(ask, description, task)[-1]["content"]
        assert untold == (f"{description}\n\nWrite the clinical rationale." if ask == "explain" else description)
        with pytest.raises(ValueError, match=f"ask '{ask}' must not be given the known label"):
            render_messages(ask, description, task, label=label)
    with pytest.raises(ValueError, match="ask 'rationalize' needs the known label"):
        render_messages("rationalize", description, task)


@given(text=st.text())
def test_patient_text_is_never_read_as_a_template(task: DiagnosisTask, text: str) -> None:
    for raw in (text, "{{ task.role }} {% if x %}", "<b>&amp;</b>"):
        assert render_messages("direct", f"x{raw}x", task)[-1]["content"] == f"x{raw}x"
        assert f"x{raw}x" in render_answer("diagnose", f"x{raw}x", "AD", task)


@pytest.mark.parametrize("shots", [0, 2])
def test_picture_stands_before_the_first_turn_of_the_user(
    task: DiagnosisTask, exemplars: tuple[Exemplar, ...], shots: int
) -> None:
    plain = render("diagnose", "The patient is a woman.", task, exemplars[:shots])
    before = [dict(message) for message in plain]
    seen = with_picture(plain, b"a picture")
    assert plain == before, "the messages that were given stay as they are"
    assert [message["role"] for message in seen] == [message["role"] for message in plain]
    texts = [[part["text"] for part in message["content"] if part["type"] == "text"] for message in seen]
    assert texts == [[message["content"]] for message in plain]
    kinds = [[part["type"] for part in message["content"]] for message in seen]
    assert kinds == [["text"], ["image_url", "text"], *[["text"]] * (2 * shots)]
    head, _, data = seen[1]["content"][0]["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == b"a picture"


def test_template_value_that_is_not_given_is_an_error(task: DiagnosisTask) -> None:
    with pytest.raises(UndefinedError, match="'answer' is undefined"):
        prompting._block("v1", "diagnose", "assistant", rationale="x")
    with pytest.raises(TemplateNotFound, match="v0/direct"):
        render_messages("direct", "x", task, version="v0")


def exemplar_file(tmp_path: Path, content: Any) -> str:
    file = tmp_path / "mine.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(file)


def test_any_top_level_names(tmp_path: Path, task: DiagnosisTask) -> None:
    content = {
        "Patient 7 (expert K.)": GOOD,
        "": GOOD | {"diagnosis": "(A)"},
        "x": GOOD | {"diagnosis": "MCI", "by": "me"},
    }
    exemplars = load_exemplars(exemplar_file(tmp_path, content), task)
    assert [one.label for one in exemplars] == ["NC", "AD", "MCI"]
    assert [one.name for one in exemplars] == ["Patient 7 (expert K.)", "", "x"]
    assert exemplars[0] == Exemplar(f"The patient is a man.\n\n{task.question_text()}", "He is well.", "NC")


def test_question_is_asked_once(tmp_path: Path, task: DiagnosisTask) -> None:
    asked = GOOD | {"patient_description": f"The patient is a man.\n{task.question_text()}\n"}
    with_it, without_it = load_exemplars(exemplar_file(tmp_path, {"a": asked, "b": GOOD}), task)
    assert with_it == without_it


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable as JSON"),
        ([], "expected an object with one entry per exemplar"),
        ({}, "expected an object with one entry per exemplar"),
        (
            {"third case": "text"},
            "third case: expected an object with patient_description, clinical_rationale, diagnosis",
        ),
        ({"ok": GOOD, "third case": {}}, "third case: patient_description is missing"),
        (
            {"third case": {**GOOD, "clinical_rationale": " "}},
            "third case: clinical_rationale is missing or not a text",
        ),
        (
            {"third case": {**GOOD, "clinical_rationale": ["x"]}},
            "third case: clinical_rationale is missing or not a text",
        ),
        ({"third case": {**GOOD, "diagnosis": "Mrs. Miller"}}, "third case: diagnosis is none of AD, MCI, NC"),
    ],
)
def test_unusable_exemplars_name_file_exemplar_and_key(
    tmp_path: Path, task: DiagnosisTask, content: Any, message: str
) -> None:
    with pytest.raises(TaskError, match=rf"mine\.json: {message}") as refused:
        load_exemplars(exemplar_file(tmp_path, content), task)
    assert "Miller" not in str(refused.value)


def test_missing_exemplar_file(tmp_path: Path, task: DiagnosisTask) -> None:
    with pytest.raises(TaskError, match=r"task\.exemplars: no file at .*none\.json"):
        load_exemplars(str(tmp_path / "none.json"), task)


def test_shipped_exemplars_cover_every_label(task: DiagnosisTask, exemplars: tuple[Exemplar, ...]) -> None:
    assert sorted(one.label for one in exemplars) == sorted(task.label_names)


def test_picture_stands_before_the_patients_text(task: DiagnosisTask) -> None:
    messages = render_messages("direct", "about the patient", task)
    shown = with_picture(messages)
    assert shown[0] == {"role": "system", "content": [{"type": "text", "text": messages[0]["content"]}]}
    text = {"type": "text", "text": "about the patient"}
    assert shown[-1] == {"role": "user", "content": [{"type": "image"}, text]}
    assert messages[-1]["content"] == "about the patient"
