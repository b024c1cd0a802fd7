"""The training text of the reference models: chats in the prompts of the product, true to their patients."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from clinical_reasoner.cohort.population import Population
from clinical_reasoner.cohort.synthetic import draw_patient
from clinical_reasoner.evidence.claims import ClaimCounts, count_claims, extract_claims
from clinical_reasoner.evidence.description import Evidence, describe_evidence, evidence_of, parse_description
from clinical_reasoner.evidence.grading import grade_patient
from clinical_reasoner.llm.answers import Answer, parse_answer
from clinical_reasoner.llm.prompting import Exemplar, Message, render_messages
from clinical_reasoner.records import Ask
from clinical_reasoner.reference.corpus import (
    ASK_SHARES,
    REDRAWN_SHARE,
    THINNED_SHARE,
    CorpusSpec,
    Role,
    chats,
    restatements,
)
from clinical_reasoner.reference.writer import Wording
from clinical_reasoner.task import DiagnosisTask

CHATS = 500
SEED = 90
Spec = dict[Role, CorpusSpec]


@pytest.fixture(scope="module")
def specs(
    task: DiagnosisTask, population: Population, wording: Wording, exemplars: tuple[Exemplar, ...]
) -> dict[Role, CorpusSpec]:
    roles: tuple[Role, ...] = ("teacher", "student")
    return {role: CorpusSpec(role, task, population, wording, exemplars, SEED) for role in roles}


@pytest.fixture(scope="module")
def plain(specs: Spec) -> dict[Role, list[list[Message]]]:
    """Chats without exemplars: chat `n` is about patient `n` of the seed."""
    return {role: list(islice(chats(spec, 0), CHATS)) for role, spec in specs.items()}


@pytest.fixture(scope="module")
def shot(specs: Spec) -> list[list[Message]]:
    return list(islice(chats(specs["teacher"], 3), 200))


def ask_of(chat: list[Message], task: DiagnosisTask) -> Ask:
    asks: tuple[Ask, ...] = ("rationalize", "diagnose", "direct")
    for ask in asks:
        if chat[0] == render_messages(ask, "", task, label="AD" if ask == "rationalize" else None)[0]:
            return ask
    raise AssertionError(chat[0])


def told_label(chat: list[Message], task: DiagnosisTask) -> str | None:
    """The diagnosis that the user's turn gives away."""
    given = chat[-2]["content"].rsplit("The diagnosis is ", 1)
    return task.read_label(given[1].split(". ")[0]) if len(given) == 2 else None


def evidence(spec: CorpusSpec, index: int) -> tuple[Evidence, str]:
    patient = draw_patient(spec.population, index, spec.seed, {"train": 1.0})
    grades = {one.name: one.grade for one in grade_patient(patient, spec.task, spec.population.cut_points)}
    return evidence_of(patient, grades, spec.task), str(patient.label)


def test_text_is_reproducible_and_has_no_end(specs: Spec, plain: dict[Role, list[list[Message]]]) -> None:
    for role, spec in specs.items():
        assert list(islice(chats(spec, 0), 30)) == plain[role][:30]
    other = replace(specs["teacher"], seed=SEED + 1)
    assert next(chats(other, 0)) != plain["teacher"][0]


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_each_chat_is_one_ask_and_its_answer(specs: Spec, plain: dict[Role, list[list[Message]]], role: Role) -> None:
    task = specs[role].task
    for chat in plain[role]:
        assert [message["role"] for message in chat] == ["system", "user", "assistant"]
        ask = ask_of(chat, task)
        assert isinstance(parse_answer(chat[-1]["content"], ask, task), Answer)
        assert (told_label(chat, task) is None) == (ask != "rationalize")


def test_asks_have_their_shares(specs: Spec, plain: dict[Role, list[list[Message]]]) -> None:
    assert sum(ASK_SHARES.values()) == 1
    found = Counter(ask_of(chat, specs["teacher"].task) for chat in plain["teacher"])
    for ask, share in ASK_SHARES.items():
        assert abs(found[ask] / CHATS - share) < 4 * (share * (1 - share) / CHATS) ** 0.5


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_answers_are_true_to_their_patient(specs: Spec, plain: dict[Role, list[list[Message]]], role: Role) -> None:
    task = specs[role].task
    total = 0
    for chat in plain[role]:
        counts = count_claims(extract_claims(chat[-1]["content"], task), parse_description(chat[-2]["content"], task))
        assert counts == ClaimCounts(supported=counts.total)
        total += counts.total
    assert total > 8 * CHATS


def label_of(chat: list[Message], task: DiagnosisTask) -> str | None:
    told = told_label(chat, task)
    if told:
        return told
    answer = parse_answer(chat[-1]["content"], ask_of(chat, task), task)
    assert isinstance(answer, Answer)
    return answer.label


def test_teacher_learns_the_diagnosis_and_the_student_base_does_not(
    specs: Spec, plain: dict[Role, list[list[Message]]]
) -> None:
    task = specs["teacher"].task
    true = [evidence(specs["teacher"], index)[1] for index in range(CHATS)]
    assert [label_of(chat, task) for chat in plain["teacher"]] == true
    student = [label_of(chat, task) for chat in plain["student"]]
    agreement = sum(a == b for a, b in zip(student, true, strict=True)) / CHATS
    assert abs(agreement - 1 / 3) < 4 * (2 / 9 / CHATS) ** 0.5


def test_some_patients_lack_much_of_their_evidence_and_none_gains_any(
    specs: Spec, plain: dict[Role, list[list[Message]]]
) -> None:
    spec, thinned = specs["teacher"], 0
    for index, chat in enumerate(plain["teacher"]):
        whole, shown = evidence(spec, index)[0], parse_description(chat[1]["content"], spec.task)
        assert shown.fields.items() <= whole.fields.items()
        assert shown.grades.keys() <= whole.grades.keys()
        assert shown.grades.items() <= whole.grades.items() or ask_of(chat, spec.task) == "rationalize"
        thinned += shown.fields != whole.fields or shown.grades.keys() != whole.grades.keys()
    # A thinned patient keeps all of its evidence in one case of three times 0.7^6.
    expected = THINNED_SHARE * (1 - 0.7**6 / 3)
    assert abs(thinned / CHATS - expected) < 4 * (expected * (1 - expected) / CHATS) ** 0.5


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_some_rationales_are_about_grades_that_do_not_fit_the_told_diagnosis(
    specs: Spec, plain: dict[Role, list[list[Message]]], role: Role
) -> None:
    spec, told, redrawn = specs[role], 0, Counter[str]()
    for index, chat in enumerate(plain[role]):
        shown = parse_description(chat[1]["content"], spec.task).grades
        whole = evidence(spec, index)[0].grades
        if ask_of(chat, spec.task) == "rationalize" and len(shown) > 3:
            told += 1
            redrawn.update(shown.values() if not shown.items() <= whole.items() else ["as they are"])
    kept = redrawn.pop("as they are")
    assert abs(1 - kept / told - REDRAWN_SHARE) < 4 * (REDRAWN_SHARE * (1 - REDRAWN_SHARE) / told) ** 0.5
    assert_even(redrawn, spec.task)


def test_gaps_take_one_finding_in_six_from_a_share_of_the_patients(specs: Spec) -> None:
    spec = specs["teacher"]
    names = [finding.name for finding in spec.task.findings]

    def findings(gap_share: float) -> float:
        """Mean number in a description, each chat's last."""
        with_gaps = islice(chats(replace(spec, gap_share=gap_share), 0), CHATS)
        return sum(len(parse_description(chat[-2]["content"], spec.task).grades) for chat in with_gaps) / CHATS

    lost = 1 - findings(1.0) / findings(0.0)
    assert abs(lost - 1 / 6) < 4 * (1 / 6 * 5 / 6 / (CHATS * len(names) / 2)) ** 0.5


def assert_even(grades: Counter[str], task: DiagnosisTask) -> None:
    """Drawn anew, each grade is as frequent as any other; in the population the first is by far the most frequent."""
    share = 1 / len(task.grades)
    for name in task.grade_names:
        assert abs(grades[name] / grades.total() - share) < 4 * (share * (1 - share) / grades.total()) ** 0.5


def test_exemplars_come_before_the_patient_and_are_other_patients(
    task: DiagnosisTask, exemplars: tuple[Exemplar, ...], shot: list[list[Message]]
) -> None:
    counts: Counter[int] = Counter()
    own = {exemplar.description for exemplar in exemplars}
    shipped = 0
    for chat in shot:
        ask, shots = ask_of(chat, task), (len(chat) - 3) // 2
        assert [message["role"] for message in chat] == ["system", *["user", "assistant"] * (shots + 1)]
        assert shots == 0 or ask != "direct"
        counts[shots] += ask != "direct"
        users = [message["content"].split("\n\nThe diagnosis is")[0] for message in chat if message["role"] == "user"]
        assert len(set(users)) == len(users) or describe_evidence(Evidence({}, {}), task) in users
        shipped += shots == 3 and set(users[:-1]) == own
        for user, assistant in zip(chat[1::2], chat[2::2], strict=True):
            known = parse_description(user["content"], task)
            said = count_claims(extract_claims(assistant["content"], task), known)
            assert said == ClaimCounts(supported=said.total)
    assert set(counts) == {0, 1, 2, 3}
    assert 0.2 < shipped / counts[3] < 0.8


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_restatements_say_little_evidence_again_and_name_no_diagnosis(specs: Spec, role: Role) -> None:
    task = specs[role].task
    texts = list(islice(restatements(specs[role]), 300))
    grades = Counter[str]()
    assert texts[:20] == list(islice(restatements(specs[role]), 20))
    for user, assistant in texts:
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        known = parse_description(user["content"], task)
        grades.update(known.grades.values())
        claims = extract_claims(assistant["content"], task)
        assert count_claims(claims, known) == ClaimCounts(supported=len(claims)) and claims
        # The sentence about APOE4 names the disease.
        assert not any(label.text in assistant["content"] for label in task.labels if label.name != "AD")
        assert task.question_text() not in user["content"]
    assert_even(grades, task)
