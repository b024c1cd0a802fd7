"""What a text says about a patient: by hand, on the project's own text, and on any text at all."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_reasoner.evidence.claims import Claim, ClaimCounts, count_claims, extract_claims, judge_claim
from clinical_reasoner.evidence.description import Evidence, describe_evidence, parse_description
from clinical_reasoner.llm.prompting import Exemplar
from clinical_reasoner.reference.writer import Wording, claims_text, write_rationale
from clinical_reasoner.task import DiagnosisTask

HIPPOCAMPUS, ENTORHINAL, TEMPORAL = "hippocampal_atrophy", "entorhinal_atrophy", "temporal_atrophy"
Said = list[tuple[str, str]]


def said(text: str, task: DiagnosisTask) -> Said:
    return [(claim.name, claim.value) for claim in extract_claims(text, task)]


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("There is severe hippocampal atrophy.", [(HIPPOCAMPUS, "Severe")]),
        ("severe hippocampal and entorhinal atrophy", [(HIPPOCAMPUS, "Severe"), (ENTORHINAL, "Severe")]),
        (
            "mild temporal, hippocampal, and entorhinal atrophy",
            [(TEMPORAL, "Mild"), (HIPPOCAMPUS, "Mild"), (ENTORHINAL, "Mild")],
        ),
        ("severe hippocampal atrophy and mild entorhinal atrophy", [(HIPPOCAMPUS, "Severe"), (ENTORHINAL, "Mild")]),
        ("severe hippocampal atrophy and entorhinal atrophy", [(HIPPOCAMPUS, "Severe"), (ENTORHINAL, "Severe")]),
        ("Severe temporal atrophy. Mild hippocampal atrophy.", [(TEMPORAL, "Severe"), (HIPPOCAMPUS, "Mild")]),
        ("SEVERE HIPPOCAMPAL ATROPHY", [(HIPPOCAMPUS, "Severe")]),
        ("severe\n  hippocampal\natrophy", [(HIPPOCAMPUS, "Severe")]),
        ("marked atrophy of the hippocampus", [(HIPPOCAMPUS, "Severe")]),
        ("slightly hippocampal atrophy", [(HIPPOCAMPUS, "Mild")]),
        ("hippocampal volume loss is severe", [(HIPPOCAMPUS, "Severe")]),
        # medial temporal, temporal, relative to the cortex: three findings, each the longest that fits
        ("mild medial temporal atrophy", [("medial_temporal_atrophy", "Mild")]),
        ("mild medial temporal lobe atrophy", [("medial_temporal_atrophy", "Mild")]),
        ("mild temporal lobe atrophy", [(TEMPORAL, "Mild")]),
        ("mild medial temporal atrophy relative to the whole cortex", [("relative_medial_temporal_atrophy", "Mild")]),
        ("medial temporal atrophy relative to the whole cortex", []),
        ("mild superior parietal atrophy", [("superior_parietal_atrophy", "Mild")]),
        ("mild cortical atrophy", [("cortical_atrophy", "Mild")]),
        ("mild temporal and overall cortical atrophy", [(TEMPORAL, "Mild"), ("cortical_atrophy", "Mild")]),
        # the grade after the finding
        ("the ventricle enlargement is mild", [("ventricle_enlargement", "Mild")]),
        ("Ventricular enlargement appears marked.", [("ventricle_enlargement", "Severe")]),
        ("Signs of vascular disease are absent.", [("vascular_disease", "No")]),
        # absence
        ("No evidence of hippocampal atrophy", [(HIPPOCAMPUS, "No")]),
        ("no hippocampal or entorhinal atrophy", [(HIPPOCAMPUS, "No"), (ENTORHINAL, "No")]),
        ("without hippocampal atrophy", [(HIPPOCAMPUS, "No")]),
        ("There are no signs of vascular disease.", [("vascular_disease", "No")]),
        # a denied grade leaves the others
        ("There is no severe hippocampal atrophy.", [(HIPPOCAMPUS, "No or Mild")]),
        (
            "There is no evidence of severe hippocampal and entorhinal atrophy.",
            [(HIPPOCAMPUS, "No or Mild"), (ENTORHINAL, "No or Mild")],
        ),
        ("no mild or severe hippocampal atrophy", [(HIPPOCAMPUS, "No")]),
        (
            "not marked hippocampal atrophy but mild temporal atrophy",
            [(HIPPOCAMPUS, "No or Mild"), (TEMPORAL, "Mild")],
        ),
        ("hippocampal atrophy is not severe", [(HIPPOCAMPUS, "No or Mild")]),
        ("no sign of severe hippocampal atrophy", [(HIPPOCAMPUS, "No or Mild")]),
        ("no significant hippocampal atrophy", [(HIPPOCAMPUS, "No or Mild")]),
        ("no more than mild hippocampal atrophy", [(HIPPOCAMPUS, "No or Mild")]),
        ("Severe hippocampal atrophy is not present.", [(HIPPOCAMPUS, "No or Mild")]),
        ("hippocampal atrophy that is at least mild", []),
        # several grades
        ("no or mild hippocampal atrophy", [(HIPPOCAMPUS, "No or Mild")]),
        ("mild to severe hippocampal atrophy", [(HIPPOCAMPUS, "Mild or Severe")]),
        ("moderate hippocampal atrophy", [(HIPPOCAMPUS, "Mild or Severe")]),
        ("mild rather than severe hippocampal atrophy", [(HIPPOCAMPUS, "Mild")]),
        ("not severe but mild hippocampal atrophy", [(HIPPOCAMPUS, "Mild")]),
        ("The hippocampal atrophy is mild rather than severe.", [(HIPPOCAMPUS, "Mild")]),
        # denied, and only said to be there
        ("no atrophy of the hippocampus", [(HIPPOCAMPUS, "No")]),
        ("neither hippocampal nor entorhinal atrophy", [(HIPPOCAMPUS, "No"), (ENTORHINAL, "No")]),
        ("The MRI does not show hippocampal atrophy.", [(HIPPOCAMPUS, "No")]),
        ("Hippocampal atrophy is not seen.", [(HIPPOCAMPUS, "No")]),
        ("No atrophy is found in the hippocampus or the amygdala.", [(HIPPOCAMPUS, "No"), ("amygdala_atrophy", "No")]),
        ("Without ventricle enlargement.", [("ventricle_enlargement", "No")]),
        ("Hippocampal atrophy is present.", [(HIPPOCAMPUS, "Mild or Severe")]),
        ("There is hippocampal atrophy.", [(HIPPOCAMPUS, "Mild or Severe")]),
        # the place and what is the matter with it
        ("the hippocampus is severely atrophied", [(HIPPOCAMPUS, "Severe")]),
        ("markedly atrophic hippocampi", [(HIPPOCAMPUS, "Severe")]),
        ("the hippocampus is not atrophied", [(HIPPOCAMPUS, "No")]),
        ("the hippocampus is not severely atrophied", [(HIPPOCAMPUS, "No or Mild")]),
        ("The hippocampus shows severe atrophy.", [(HIPPOCAMPUS, "Severe")]),
        ("Hippocampus: no atrophy.", [(HIPPOCAMPUS, "No")]),
        ("normal hippocampal volume", [(HIPPOCAMPUS, "No")]),
        ("the amygdala is preserved", [("amygdala_atrophy", "No or Mild")]),
        ("the hippocampal volume is severely reduced", [(HIPPOCAMPUS, "Severe")]),
        ("enlarged ventricles", [("ventricle_enlargement", "Mild or Severe")]),
        ("The ventricles are not enlarged.", [("ventricle_enlargement", "No")]),
        ("mildly dilated ventricles", [("ventricle_enlargement", "Mild")]),
        ("the temporal horn is severely rounded", [("temporal_horn_rounding", "Severe")]),
        (
            "severe rounding of the temporal and frontal horns",
            [("temporal_horn_rounding", "Severe"), ("frontal_horn_rounding", "Severe")],
        ),
        (
            "severe atrophy of the frontal and parietal lobes",
            [("frontal_atrophy", "Severe"), ("parietal_atrophy", "Severe")],
        ),
        ("marked white matter changes", [("vascular_disease", "Severe")]),
        ("hippocampal atrophy of a mild degree", [(HIPPOCAMPUS, "Mild")]),
        ("The hippocampi, however, are not severely atrophied.", [(HIPPOCAMPUS, "No or Mild")]),
        (
            "neither frontal nor occipital atrophy, and hippocampal atrophy is mild",
            [("frontal_atrophy", "No"), ("occipital_atrophy", "No"), (HIPPOCAMPUS, "Mild")],
        ),
        (
            "not only severe hippocampal atrophy but also mild entorhinal atrophy",
            [(HIPPOCAMPUS, "Severe"), (ENTORHINAL, "Mild")],
        ),
        # about other patients, or supposed
        ("Normal cognition would show no hippocampal atrophy.", []),
        ("Patients with this disease often have severe hippocampal atrophy.", []),
        ("Absence of severe hippocampal atrophy would argue against it.", []),
        ("Severe hippocampal atrophy, which is often seen in dementia, is absent here.", [(HIPPOCAMPUS, "No or Mild")]),
        ("In Alzheimer's disease, severe hippocampal atrophy is the rule.", []),
        ("Whether the hippocampal atrophy is severe cannot be said.", []),
        ("If hippocampal atrophy were severe, the MMSE would be lower.", []),
        ("Mild cognitive impairment shows mild hippocampal atrophy.", []),
        (
            "Her severe hippocampal atrophy would be unusual in normal ageing.",
            [("sex", "female"), (HIPPOCAMPUS, "Severe")],
        ),
        ("Severe hippocampal atrophy, which is often seen in dementia, is there.", [(HIPPOCAMPUS, "Severe")]),
        ("no hippocampal atrophy, severe temporal atrophy", [(HIPPOCAMPUS, "No"), (TEMPORAL, "Severe")]),
        ("no hippocampal atrophy and severe temporal atrophy", [(HIPPOCAMPUS, "No"), (TEMPORAL, "Severe")]),
        # no grade, or none of the task
        ("hippocampal atrophy", []),
        ("mild cognitive impairment", []),
        ("severe pain and hippocampal atrophy", []),
    ],
)
def test_findings_by_hand(task: DiagnosisTask, text: str, claims: Said) -> None:
    assert said(text, task) == claims


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("an MMSE score of 24 out of 30", [("mmse", "24")]),
        ("scored 24 out of 30 on the Mini-Mental State Examination (MMSE)", [("mmse", "24")]),
        ("The MMSE score is 24.", [("mmse", "24")]),
        ("With an MMSE of 24, cognition is reduced", [("mmse", "24")]),
        ("24/30", [("mmse", "24")]),
        ("an MMSE of 24.5", [("mmse", "24.5")]),
        ("an MMSE of 24. It was 20/30", [("mmse", "24"), ("mmse", "20")]),
        ("MMSE: 12", [("mmse", "12")]),
        ("MMSE score was 12", [("mmse", "12")]),
        ("MMSE (12)", [("mmse", "12")]),
        ("She scored 12 on the Mini-Mental State Examination", [("sex", "female"), ("mmse", "12")]),
        ("12 of 30 points", [("mmse", "12")]),
        ("an MMSE of 24 or lower", []),
        ("a score below 24/30", []),
        ("An MMSE of 20 would suggest dementia.", []),
        ("Patients with an MMSE of 20 need help.", []),
        ("v1.24/30", []),
        ("124/300", []),
        ("a 74-year-old woman", [("age_years", "74"), ("sex", "female")]),
        ("a man aged 74", [("sex", "male"), ("age_years", "74")]),
        ("At 81 years of age", [("age_years", "81")]),
        ("The patient is 74 years old and is a woman", [("age_years", "74"), ("sex", "female")]),
        ("The PATIENT Is A Woman", [("sex", "female")]),
        ("human, womanly, female-like", [("sex", "female")]),
        ("A FEMALE patient", [("sex", "female")]),
        ("She says that she reads", [("sex", "female")]),
        ("has 12.5 years of education", [("education_years", "12.5")]),
        ("16 years of schooling", [("education_years", "16")]),
        ("has never married", [("marital_status", "never_married")]),
        ("is widowed", [("marital_status", "widowed")]),
        ("carries no copy of the APOE4 allele", [("apoe4_copies", "0")]),
        ("no copy of APOE4", [("apoe4_copies", "0")]),
        ("one copy of APOE4 raises the risk", [("apoe4_copies", "1")]),
        ("TWO COPIES OF APOE4", [("apoe4_copies", "2")]),
        ("two APOE4 alleles", [("apoe4_copies", "2")]),
        ("one e4 allele", [("apoe4_copies", "1")]),
        ("no APOE \u03b54 allele", [("apoe4_copies", "0")]),
        ("does not carry the APOE-e4 allele", [("apoe4_copies", "0")]),
        ("homozygous for APOE4", [("apoe4_copies", "2")]),
        ("an APOE4 carrier", [("apoe4_copies", "1 or 2")]),
        ("not an APOE4 carrier", [("apoe4_copies", "0")]),
        ("APOE4 raises the risk", []),
    ],
)
def test_fields_by_hand(task: DiagnosisTask, text: str, claims: Said) -> None:
    assert said(text, task) == claims


def test_claims_are_in_the_order_of_the_text(task: DiagnosisTask) -> None:
    text = "Severe hippocampal atrophy in a woman, MMSE of 20, mild temporal atrophy, aged 70."
    claims = extract_claims(text, task)
    assert [claim.name for claim in claims] == [HIPPOCAMPUS, "sex", "mmse", TEMPORAL, "age_years"]
    stretches = ["Severe hippocampal atrophy", "woman", "MMSE of 20", "mild temporal atrophy", "aged 70"]
    assert [text[claim.start : claim.end] for claim in claims] == stretches


def test_longest_wording_wins(task: DiagnosisTask) -> None:
    text = "With an MMSE score of 24 out of 30."
    (claim,) = extract_claims(text, task)
    assert text[claim.start :].startswith("MMSE score of")
    raw = task.model_dump()
    raw["name"] = "with more mentions of marital status"
    (marital,) = (field for sentence in raw["sentences"] for field in sentence if field["name"] == "marital_status")
    marital["mentions"] = {"married": ["married"], "never_married": ["never married"]}
    more = DiagnosisTask.model_validate(raw)
    assert said("Was never married.", more) == [("marital_status", "never_married")]
    assert said("Was married.", more) == [("marital_status", "married")]


EVIDENCE = Evidence({"mmse": "24", "sex": "female", "education_years": "12"}, {HIPPOCAMPUS: "Severe"})


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        (HIPPOCAMPUS, "Severe", "supported"),
        (HIPPOCAMPUS, "No", "contradicted"),
        (TEMPORAL, "No", "not_in_evidence"),
        ("mmse", "24", "supported"),
        ("mmse", "24.0", "supported"),
        ("mmse", "25", "contradicted"),
        ("sex", "male", "contradicted"),
        ("education_years", "12.5", "contradicted"),
        ("age_years", "70", "not_in_evidence"),
    ],
)
def test_verdicts(name: str, value: str, verdict: str) -> None:
    assert judge_claim(Claim(name, value, 0, 0), EVIDENCE) == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("The patient is 90 years or older.", "supported"),
        ("a 90-year-old woman", "supported"),
        ("aged 97", "supported"),
        ("She is 93 years old.", "supported"),
        ("an 89-year-old woman", "contradicted"),
        ("aged 74", "contradicted"),
    ],
)
def test_age_that_stands_for_itself_and_everything_above(task: DiagnosisTask, text: str, verdict: str) -> None:
    (claim,) = (claim for claim in extract_claims(text, task) if claim.name == "age_years")
    assert judge_claim(claim, Evidence({"age_years": "90+"}, {})) == verdict


def test_lower_bound_is_no_claim_of_that_age(task: DiagnosisTask) -> None:
    (claim,) = extract_claims("The patient is 90 years or older.", task)
    assert judge_claim(claim, Evidence({"age_years": "74"}, {})) == "contradicted"


def test_counts(task: DiagnosisTask) -> None:
    text = "A woman with an MMSE of 20, severe hippocampal and temporal atrophy, aged 70."
    counts = count_claims(extract_claims(text, task), EVIDENCE)
    assert counts == ClaimCounts(supported=2, contradicted=1, not_in_evidence=2)
    assert counts.total == 5
    assert count_claims([], EVIDENCE) == ClaimCounts() and ClaimCounts().total == 0


def graded(task: DiagnosisTask) -> st.SearchStrategy[dict[str, str]]:
    names = [finding.name for finding in task.findings]
    return st.dictionaries(st.sampled_from(names), st.sampled_from(task.grade_names), min_size=1)


@given(data=st.data())
def test_written_claims_are_read_back_one_for_one(task: DiagnosisTask, data: st.DataObject) -> None:
    grades = data.draw(graded(task))
    assert sorted(said(f"The MRI shows {claims_text(grades, task)}.", task)) == sorted(grades.items())


@given(data=st.data())
def test_one_flipped_grade_is_one_contradiction(task: DiagnosisTask, data: st.DataObject) -> None:
    grades = data.draw(graded(task))
    name = data.draw(st.sampled_from(sorted(grades)))
    other = data.draw(st.sampled_from([grade for grade in task.grade_names if grade != grades[name]]))
    claims = extract_claims(claims_text({**grades, name: other}, task), task)
    assert [claim.name for claim in claims if judge_claim(claim, Evidence({}, grades)) != "supported"] == [name]
    assert count_claims(claims, Evidence({}, grades)) == ClaimCounts(supported=len(grades) - 1, contradicted=1)


@given(data=st.data())
def test_description_claims_what_it_states(
    task: DiagnosisTask, drawn_evidence: list[Evidence], data: st.DataObject
) -> None:
    evidence = drawn_evidence[data.draw(st.integers(0, len(drawn_evidence) - 1))]
    claims = said(describe_evidence(evidence, task), task)
    assert sorted(claims) == sorted([*evidence.fields.items(), *evidence.grades.items()])


@given(data=st.data())
def test_rationale_is_supported_until_one_word_is_changed(
    task: DiagnosisTask, wording: Wording, drawn_evidence: list[Evidence], data: st.DataObject
) -> None:
    evidence = drawn_evidence[data.draw(st.integers(0, len(drawn_evidence) - 1))]
    label = data.draw(st.sampled_from(task.label_names))
    text = write_rationale(evidence, label, task, wording, Random(data.draw(st.integers(0, 99))))
    claims = extract_claims(text, task)
    counts = count_claims(claims, evidence)
    # MMSE, APOE4 and the findings of the four groups; age in half of the texts
    assert counts == ClaimCounts(supported=len(claims)) and len(claims) >= 2 + 5 + 5 + 2 + 1
    assert len({claim.name for claim in claims}) == len(claims)
    (vascular,) = (claim for claim in claims if claim.name == "vascular_disease")
    before, after = text[: vascular.start], text[vascular.start :].removeprefix(vascular.value.lower())
    assert after.startswith(" ") and text.count("vascular") == 1
    flipped = f"{before}{'mild' if vascular.value == 'No' else 'no'}{after}"
    assert count_claims(extract_claims(flipped, task), evidence) == ClaimCounts(len(claims) - 1, 1)
    fewer = Evidence({name: evidence.fields[name] for name in evidence.fields if name != "mmse"}, evidence.grades)
    assert count_claims(claims, fewer) == ClaimCounts(len(claims) - 1, 0, 1)


def test_exemplars_contradict_nothing(task: DiagnosisTask, exemplars: tuple[Exemplar, ...]) -> None:
    for exemplar in exemplars:
        counts = count_claims(extract_claims(exemplar.rationale, task), parse_description(exemplar.description, task))
        assert counts.total >= 12
        assert counts == ClaimCounts(supported=counts.total)


@given(data=st.data())
def test_any_text_can_be_read(task: DiagnosisTask, data: st.DataObject) -> None:
    words = st.sampled_from(
        [
            *(word for grade in task.grades for word in grade.words),
            *(finding.term for finding in task.findings),
            *("and", "or", ",", "is", "hippocampal", "atrophy", "no", "24", "out of 30", "MMSE of", "woman"),
        ]
    )
    text = data.draw(st.lists(words | st.text(max_size=5), max_size=15).map(" ".join))
    known = {field.name for field in task.fields} | {finding.name for finding in task.findings}
    for claim in extract_claims(text, task):
        assert claim.name in known
        judge_claim(claim, EVIDENCE)


@pytest.mark.parametrize("text", ["\u017fevere hippocampal atrophy", "m\u0131ld hippocampal atrophy", "\u212aK"])
def test_letters_that_only_look_alike_in_lower_case(task: DiagnosisTask, text: str) -> None:
    assert said(text, task) == []


def other_task(task: DiagnosisTask, **finding: Any) -> DiagnosisTask:
    raw = task.model_dump()
    raw["name"] = f"with {finding['term']}"
    raw["findings"] = [*raw["findings"], {"name": "new", **finding}]
    return DiagnosisTask.model_validate(raw)


@pytest.mark.parametrize("term", ["gliosis", "loss of white and grey matter", "white, grey or mixed lesions", "Iron"])
def test_terms_of_other_tasks(task: DiagnosisTask, term: str) -> None:
    new = other_task(task, term=term)
    assert said(f"There is mild {term} and severe temporal atrophy.", new) == [("new", "Mild"), (TEMPORAL, "Severe")]
    assert said(f"no temporal atrophy or {term}", new) == [(TEMPORAL, "No"), ("new", "No")]
    assert said(f"The {term} is severe.", new) == [("new", "Severe")]


def test_grade_words_may_be_capitalised(task: DiagnosisTask) -> None:
    raw = task.model_dump()
    raw["name"], raw["grades"][1]["words"] = "capital words", ["Mild", "Slight"]
    assert said("slight temporal atrophy", DiagnosisTask.model_validate(raw)) == [(TEMPORAL, "Mild")]
