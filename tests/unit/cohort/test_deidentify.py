"""De-identification: no id, path, date or age from 90 on survives; pseudonyms hold together and cannot be guessed."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clinical_reasoner.cohort.bids import read_bids
from clinical_reasoner.cohort.deidentify import (
    KEY_VARIABLE,
    cap_age,
    deidentify_visit,
    facial_tissue_present,
    load_key,
    pseudonym,
)
from clinical_reasoner.cohort.freesurfer import read_freesurfer
from clinical_reasoner.cohort.mapped import read_mapped
from clinical_reasoner.cohort.visits import Visit
from clinical_reasoner.config.columns import TableMapping, TextColumn, TimeColumn
from clinical_reasoner.errors import UserError
from clinical_reasoner.records import RejectedRow

KEY = b"0123456789abcdef0123456789abcdef"
OTHER_KEY = b"fedcba9876543210fedcba9876543210"
Array = np.ndarray[Any, np.dtype[np.float32]]


def visit(**fields: Any) -> Visit:
    return Visit(**{"patient_id": "123_S_4567", "visit_id": "m12", "cohort": "mine", "source": "file.csv:2"} | fields)


@pytest.mark.parametrize(
    ("age", "shown"),
    [(None, None), (0.0, 0.0), (74.5, 74.5), (89.0, 89.0), (89.99, 89.99), (90.0, 90.0), (90.1, 90.0), (112.0, 90.0)],
)
def test_ages_of_90_and_more_are_90(age: float | None, shown: float | None) -> None:
    assert cap_age(age) == shown
    cleaned = deidentify_visit(visit(age_years=age), KEY)
    assert cleaned.age_years == shown
    assert cleaned.at_least == (("age_years",) if shown == 90.0 else ())


def test_age_that_was_a_lower_bound_stays_one() -> None:
    for age, shown in ((89.0, 89.0), (92.0, 90.0)):
        cleaned = deidentify_visit(visit(age_years=age, at_least=("age_years",)), KEY)
        assert (cleaned.age_years, cleaned.at_least) == (shown, ("age_years",))


def test_pseudonym_is_the_same_in_every_table_and_another_for_another_person() -> None:
    one = pseudonym("123_S_4567", KEY)
    assert one == pseudonym(" 123_S_4567\n", KEY) == deidentify_visit(visit(), KEY).patient_id
    assert len(one) == 16 and set(one) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    assert one != pseudonym("123_S_4567", OTHER_KEY)
    many = {pseudonym(str(number), KEY) for number in range(20_000)}
    assert len(many) == 20_000
    assert pseudonym("7", KEY) != pseudonym("007", KEY)


def test_pseudonym_never_changes() -> None:
    """Tables that were written with a key stay linkable: these values are the contract."""
    assert pseudonym("123_S_4567", KEY) == "BATEON52325VIRWV"


@pytest.mark.parametrize("visit_id", ["bl", "BL", "m06", "M120", "ses-01", "ses-M006", "sc", "1", "v2", "d0129", "y3"])
def test_visit_ids_that_tell_the_order_alone_stay(visit_id: str) -> None:
    assert deidentify_visit(visit(visit_id=visit_id), KEY).visit_id == visit_id


@pytest.mark.parametrize(
    "visit_id", ["OAS30001_MR_d0129", "ses-20190203", "2019-02-03", "03.02.19", "123_S_4567", "4567", "Jan", "smith"]
)
def test_other_visit_ids_are_replaced(visit_id: str) -> None:
    replaced = deidentify_visit(visit(visit_id=visit_id), KEY).visit_id
    assert len(replaced) == 16 and visit_id not in replaced
    assert replaced == deidentify_visit(visit(visit_id=visit_id), KEY).visit_id
    assert replaced != deidentify_visit(visit(visit_id=visit_id, patient_id="another"), KEY).visit_id


@pytest.mark.parametrize("visit_id", ["m84", "ses-M084", "y7", "v8", "d2557"])
def test_visit_id_does_not_tell_a_capped_age(visit_id: str) -> None:
    """The age at baseline, which is shown, and `m84` make the true one."""
    kept = deidentify_visit(visit(visit_id=visit_id, age_years=89.5, years_from_baseline=7.0), KEY)
    assert (kept.visit_id, kept.age_years) == (visit_id, 89.5)
    for age, at_least in ((92.0, ()), (90.0, ()), (89.0, ("age_years",))):
        late = visit(visit_id=visit_id, age_years=age, at_least=at_least, years_from_baseline=7.0)
        replaced = deidentify_visit(late, KEY)
        assert len(replaced.visit_id) == 16 and replaced == deidentify_visit(late, KEY)
        first = deidentify_visit(late.model_copy(update={"years_from_baseline": 0.0}), KEY)
        assert first.visit_id == visit_id, "no earlier visit has an age"


def test_time_from_baseline_does_not_tell_a_capped_age() -> None:
    first, late, last = (
        deidentify_visit(visit(age_years=age, years_from_baseline=years), KEY)
        for age, years in ((87.0, 0.0), (89.0, 2.0), (95.0, 8.0))
    )
    assert (first.years_from_baseline, late.years_from_baseline, last.years_from_baseline) == (0.0, 2.0, 3.0)
    assert deidentify_visit(visit(age_years=97.0, years_from_baseline=2.0), KEY).years_from_baseline == 0.0


def test_what_is_not_identifying_stays() -> None:
    full = visit(sex="female", mmse=24, label="AD", age_years=70.0, image_path="/d/123_S_4567.nii", warnings=("w",))
    changed = deidentify_visit(full, KEY)
    assert changed.image_path is None
    same = {"patient_id": full.patient_id, "image_path": full.image_path}
    assert changed.model_copy(update=same) == full
    assert deidentify_visit(full, KEY, keep_paths=True).image_path == full.image_path


def test_no_field_of_a_visit_holds_a_date() -> None:
    for name, field in Visit.model_fields.items():
        assert "date" not in name and "birth" not in name and "time" not in name
        assert "date" not in str(field.annotation)
    assert not any(isinstance(value, datetime.date) for value in visit().model_dump().values())


CANARY, CANARY_AGE = "zz9canary7", "93.4"


def canaries(folder: Path) -> Iterator[Visit | RejectedRow]:
    """One person from three kinds of source, in visits and in rows that are set aside."""
    bids = folder / "bids"
    for session in ("ses-1", "ses-20190203"):
        image = bids / f"sub-{CANARY}" / session / "anat" / f"sub-{CANARY}_{session}_T1w.nii.gz"
        image.parent.mkdir(parents=True)
        image.touch()
    (bids / f"sub-{CANARY}x").mkdir()
    people = f"participant_id\tage\tsex\nsub-{CANARY}\t{CANARY_AGE}\tF\nsub-{CANARY}y\t{CANARY_AGE}\tF\n"
    (bids / "participants.tsv").write_text(people, encoding="utf-8")
    sessions = f"session_id\tacq_time\tage\nses-1\t2018-02-03\t{CANARY_AGE}\nses-20190203\t2019-02-03\t{CANARY_AGE}\n"
    (bids / f"sub-{CANARY}/sub-{CANARY}_sessions.tsv").write_text(sessions, encoding="utf-8")
    yield from read_bids(bids)
    table = folder / "table.csv"
    table.write_text(f"id,age\n{CANARY},{CANARY_AGE}\n{CANARY},{CANARY_AGE}\n{CANARY}2,{CANARY}\n", encoding="utf-8")
    mapping = TableMapping(patient_id=TextColumn(columns=("id",)), age_years=TimeColumn(columns=("age",)))
    yield from read_mapped(table, mapping)
    runs = folder / "subjects"
    (runs / CANARY / "mri").mkdir(parents=True)
    (runs / CANARY / "mri/aparc+aseg.mgz").touch()
    (runs / f"{CANARY}3").mkdir()
    yield from read_freesurfer(runs, table)


def test_canary(tmp_path: Path) -> None:
    rows = list(canaries(tmp_path))
    visits = [row for row in rows if isinstance(row, Visit)]
    rejected = [row for row in rows if isinstance(row, RejectedRow)]
    assert len(visits) == 4 and len(rejected) >= 5
    before = " ".join(row.model_dump_json() for row in visits)
    assert CANARY in before and CANARY_AGE in before and "20190203" in before
    cleaned = [deidentify_visit(row, KEY) for row in visits]
    after = " ".join(row.model_dump_json() for row in [*cleaned, *rejected])
    for secret in (CANARY, CANARY.upper(), CANARY_AGE, "20190203", "2019", KEY.decode()):
        assert secret not in after
    assert {row.age_years for row in cleaned} == {90.0}
    same_person = {row.patient_id for row in cleaned if row.cohort != "bids"}
    assert len(same_person) == 1


def test_key_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    file = tmp_path / "key"
    file.write_bytes(KEY + b"\n")
    assert load_key(cohort, file) == KEY
    assert load_key(tmp_path / "cohort" / "table.csv", file) == KEY
    monkeypatch.setenv(KEY_VARIABLE, OTHER_KEY.decode())
    assert load_key(cohort) == OTHER_KEY
    assert load_key(cohort, file) == KEY
    monkeypatch.setenv("MY_KEY", KEY.decode())
    assert load_key(cohort, variable="MY_KEY") == KEY


@pytest.mark.parametrize("secret", [b"", b" \n", b"short-secret", b"a" * 64, KEY[:31]])
def test_missing_or_poor_key_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: bytes
) -> None:
    cohort, file = tmp_path / "cohort", tmp_path / "key"
    cohort.mkdir()
    file.write_bytes(secret)
    monkeypatch.setenv(KEY_VARIABLE, secret.decode())
    for key_file in (file, None):
        with pytest.raises(UserError, match=r"(no key|too short).*openssl rand -hex 32") as error:
            load_key(cohort, key_file)
        assert not secret.strip() or secret.decode() not in str(error.value)


def test_key_beside_the_data_or_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = tmp_path / "cohort"
    (cohort / "sub").mkdir(parents=True)
    file = cohort / "sub" / "key"
    file.write_bytes(KEY)
    (tmp_path / "link").symlink_to(file)
    for path, root in ((file, cohort), (tmp_path / "link", cohort), (file, cohort / "sub" / "table.csv")):
        with pytest.raises(UserError, match="inside the cohort folder"):
            load_key(root, path)
    with pytest.raises(UserError, match="not readable"):
        load_key(cohort, tmp_path / "none")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(UserError, match=f"environment variable {KEY_VARIABLE}: no key"):
        load_key(cohort)


def head(zooms: tuple[float, float, float], parts: str) -> tuple[Array, Array]:
    """A made-up head in RAS: brain and scalp ellipsoids and, where asked for, a nose with lips below it."""
    size = (200.0, 250.0, 240.0)
    shape = [round(length / zoom) for length, zoom in zip(size, zooms, strict=True)]
    x, y, z = np.meshgrid(*(np.arange(n) * zoom for n, zoom in zip(shape, zooms, strict=True)), indexing="ij")
    x, y, z = x - 100, y - 115, z - 140
    brain = ((x / 68) ** 2 + (y / 85) ** 2 + (z / 65) ** 2) < 1
    outer, inner = (((x / (79 + d)) ** 2 + (y / (96 + d)) ** 2 + (z / (78 + d)) ** 2) < 1 for d in (0, -6))
    t1 = 100.0 * brain + 180.0 * (outer & ~inner)
    if "face" in parts:
        nose = (np.abs(x) < 15) & (y > 60) & (y < 112) & (z < -15) & (z > -60)
        jaw = (np.abs(x) < 50) & (y > 30) & (y < 95) & (z <= -60) & (z > -120)
        t1 = np.where(nose | jaw, 120.0, t1)
    if "defaced" in parts:
        t1 = np.where((y > 40) & (z < 0), 0.0, t1)
    if "stripped" in parts:
        t1 = np.where(brain, t1, 0.0)
    noise = np.random.default_rng(3).rayleigh(3.0, t1.shape) if "stripped" not in parts else 0.0
    return (t1 + noise).astype(np.float32), brain.astype(np.float32)


@pytest.mark.parametrize("zooms", [(2.0, 2.0, 2.0), (3.0, 3.0, 3.0), (1.5, 3.0, 4.0)])
@pytest.mark.parametrize(
    ("parts", "expected"), [("face", True), ("face defaced", False), ("face stripped", False), ("", False)]
)
@pytest.mark.parametrize("masked", [True, False])
def test_facial_tissue(zooms: tuple[float, float, float], parts: str, expected: bool, masked: bool) -> None:
    t1, brain = head(zooms, parts)
    assert facial_tissue_present(t1, brain if masked else None, zooms) is expected
    assert facial_tissue_present(t1 * 0.01, brain if masked else None, zooms) is expected


def test_facial_tissue_of_what_is_no_head() -> None:
    t1, brain = head((3.0, 3.0, 3.0), "face")
    assert facial_tissue_present(t1, np.zeros_like(brain), (3, 3, 3))  # an empty mask is no mask
    assert not facial_tissue_present(np.zeros((8, 8, 8)), None)
    assert not facial_tissue_present(np.full((8, 8, 8), np.nan), np.ones((8, 8, 8)))
    assert not facial_tissue_present(-t1, brain, (3, 3, 3))
    holes = t1.copy()
    holes[::7] = np.nan
    assert facial_tissue_present(holes, brain, (3, 3, 3))
    for bad, mask in ((t1[..., None], None), (t1, brain[1:])):
        with pytest.raises(ValueError, match="not 3D, or the mask has another shape"):
            facial_tissue_present(bad, mask)


def test_records_stay_json() -> None:
    assert json.loads(deidentify_visit(visit(age_years=93.0), KEY).model_dump_json())["age_years"] == 90.0
