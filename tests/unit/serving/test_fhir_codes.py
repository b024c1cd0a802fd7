"""The file of codes, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.errors import UserError
from clinical_reasoner.serving.fhir_codes import read_codes
from tests.unit.serving.fhir_bundles import CODES, TASK

SHIPPED = Path("configs/serving/fhir_codes.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "other", "message"),
    [
        ("  mmse:", "  mmsee:", "fields.mmsee: no column"),
        ("code: 82590-1", "code: 72106-8", "72106-8 stands there twice"),
        ("  AD: {", "  AD2: {", "diagnoses.AD2: no label of task 'alzheimers'; labels are AD, MCI, NC"),
        (
            "measure_system: urn:clinical-reasoner:measure",
            "measure_system: urn:clinical-reasoner:finding",
            "of its own",
        ),
        ("finding_system: urn:clinical-reasoner:finding", "finding_system: http://loinc.org", "of its own"),
        ("    units: {T: 1}", "    unit: {T: 1}", "unknown key"),
    ],
)
def test_a_wrong_file_is_told_the_place(text: str, other: str, message: str, tmp_path: Path) -> None:
    assert text in SHIPPED
    file = tmp_path / "codes.yaml"
    file.write_text(SHIPPED.replace(text, other), encoding="utf-8")
    with pytest.raises(UserError, match=r"codes\.yaml") as caught:
        read_codes(str(file), TASK)
    assert message in str(caught.value)


def test_every_label_and_every_field_that_a_patient_has_is_coded() -> None:
    assert set(CODES.diagnoses) == set(TASK.label_names)
    assert {field.name for field in TASK.fields} - {"sex"} <= set(CODES.fields)


@pytest.mark.parametrize(
    ("text", "copies"), [("e3/e4", 1), (" E4 / E4 ", 2), ("ε3/ε3", 0), ("E3/E5", None), ("", None)]
)
def test_genotypes(text: str, copies: int | None) -> None:
    assert CODES.fields["apoe4_copies"].written(text) == copies
