"""BIDS datasets: who has which files at which session, what the tables tell about it, and what is set aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.cohort.bids import read_bids
from clinical_reasoner.cohort.columns import TOO_MANY_CELLS, StudyFileError
from clinical_reasoner.cohort.visits import Visit, choose_visits
from clinical_reasoner.config.columns import FieldColumns, LabelColumn, UsualColumns
from clinical_reasoner.records import RejectedRow

HEADER = "participant_id\tage\tsex\teducation_years\tmmse\tapoe4_copies\tdiagnosis"
GOOD = "sub-01\t75.2\tF\t12\t24\t1\tMCI"
OUTSIDE = "a file of the visit is outside the cohort folder, or a link that leaves it"
GONE = "a file of the visit is not there, or is a link to nothing; was it fetched?"
NO_FILES = "no T1-weighted scan and no segmentation"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def add(data: Path, name: str, content: str = "") -> Path:
    file = data / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def scan(data: Path, person: str, session: str = "", entities: str = "") -> Path:
    stem = f"{person}_{session}" if session else person
    return add(data, f"{person}/{session}/anat/{stem}{entities}_T1w.nii.gz")


def people(data: Path, *lines: str, header: str = HEADER) -> None:
    add(data, "participants.tsv", "\n".join([header, *lines]) + "\n")


def read(data: Path, columns: FieldColumns | None = None) -> tuple[list[Visit], list[tuple[str, str]]]:
    rows = list(read_bids(data, columns))
    rejected = [(row.source, row.reason) for row in rows if isinstance(row, RejectedRow)]
    return [row for row in rows if isinstance(row, Visit)], rejected


def test_participant_without_sessions(data: Path) -> None:
    people(data, GOOD)
    image = scan(data, "sub-01")
    visits, rejected = read(data)
    assert rejected == []
    assert visits == [
        Visit(
            patient_id="sub-01",
            visit_id="bl",
            cohort="bids",
            label="MCI",
            label_source="participants.tsv: diagnosis/dx",
            age_years=75.2,
            sex="female",
            education_years=12.0,
            mmse=24,
            apoe4_copies=1,
            image_path=str(image),
            source="participants.tsv:2",
        )
    ]


def test_missing_values_and_columns_are_unknown(data: Path) -> None:
    people(data, "sub-01\tn/a\tn/a\tn/a\tn/a\tn/a\tn/a", "02\tN/A\tO\t\t\t\t")
    for person in ("sub-01", "sub-02"):
        scan(data, person)
    (first, second), rejected = read(data)
    assert rejected == []
    assert first.model_dump(exclude_defaults=True).keys() == {
        "patient_id",
        "visit_id",
        "cohort",
        "image_path",
        "source",
    }
    assert (second.patient_id, second.sex) == ("sub-02", None)
    people(data, "sub-01", "sub-02", header="participant_id")
    assert read(data) == ([first, second], [])


@pytest.mark.parametrize("header", [HEADER.upper(), HEADER.replace("age", "Age").replace("sex", "gender")])
def test_columns_in_any_case_and_order(data: Path, header: str) -> None:
    scan(data, "sub-01")
    people(data, GOOD)
    expected = read(data)
    people(data, GOOD, header=header)
    assert read(data) == expected
    people(data, "\t".join(GOOD.split("\t")[::-1]), header="\t".join(HEADER.split("\t")[::-1]))
    assert read(data) == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (GOOD.replace("75.2", "75,2"), "age_years is not a number"),
        (GOOD.replace("75.2", "750"), "age_years is outside 0 to 130"),
        (GOOD.replace("\tF", "\tX"), "sex has an unknown code; known are f, female, m, male"),
        (GOOD.replace("24", "31"), "mmse is outside 0 to 30"),
        (GOOD.replace("MCI", "PD"), "label has an unknown code; known are AD, MCI"),
        (GOOD.replace("sub-01", "n/a"), "participant_id is not sub- with letters and digits"),
        (GOOD.replace("sub-01", "sub-../../etc"), "participant_id is not sub- with letters and digits"),
        (GOOD.replace("sub-01", "sub-secret_id"), "participant_id is not sub- with letters and digits"),
        (GOOD.replace("sub-01", "sub-00"), "the same participant_id as an earlier row"),
        (GOOD.replace("sub-01\t75.2\tF", "sub-00\t75.2\tM"), "the same participant_id as an earlier row"),
        (GOOD.replace("sub-01", "sub-09"), NO_FILES),
    ],
)
def test_bad_row_is_set_aside_alone(data: Path, line: str, reason: str) -> None:
    people(data, GOOD.replace("01", "00"), line, GOOD.replace("01", "02"))
    for person in ("sub-00", "sub-01", "sub-02"):
        scan(data, person)
    visits, rejected = read(data)
    assert [visit.patient_id for visit in visits] == ["sub-00", "sub-02"]
    assert rejected[0][0] == "participants.tsv:3" and rejected[0][1].startswith(reason)
    assert all("secret" not in reason for _, reason in rejected)


def test_folder_without_a_row_and_row_without_a_folder(data: Path) -> None:
    people(data, GOOD, GOOD.replace("01", "07"))
    for person in ("sub-01", "sub-secret"):
        scan(data, person)
    visits, rejected = read(data)
    assert [visit.patient_id for visit in visits] == ["sub-01"]
    assert rejected == [
        ("participants.tsv:3", NO_FILES),
        ("data: sub- folder 2 by name", "no row in participants.tsv"),
    ]


def test_ages_as_a_lower_bound(data: Path) -> None:
    people(data, GOOD.replace("75.2", "89+"), GOOD.replace("01\t75.2", "02\t90.1"))
    scan(data, "sub-01")
    scan(data, "sub-02")
    (first, second), rejected = read(data)
    assert rejected == []
    assert (first.age_years, first.at_least) == (89.0, ("age_years",))
    assert (second.age_years, second.at_least) == (90.1, ())
    sessions(data, "sub-02", "ses-1\t89+", "ses-2\t89+", header="session_id\tage")
    for session in ("ses-1", "ses-2"):
        scan(data, "sub-02", session)
    visits, _ = read(data)
    assert [(one.age_years, one.at_least, one.years_from_baseline) for one in visits[1:]] == [
        (89.0, ("age_years",), 0.0)
    ] * 2


def sessions(data: Path, person: str, *lines: str, header: str) -> None:
    add(data, f"{person}/{person}_sessions.tsv", "\n".join([header, *lines]) + "\n")


def test_sessions_tell_age_and_diagnosis_of_the_visit(data: Path) -> None:
    """Two people with the same session names: a join by session alone would give one the other's values."""
    people(data, "sub-A\t70\tF\t12\t30\t1\tCN", "sub-B\t80\tM\t16\t17\t2\tAD")
    for person in ("sub-A", "sub-B"):
        for session in ("ses-1", "ses-2"):
            scan(data, person, session)
    header = "session_id\tage\tMMSE\tdx"
    sessions(data, "sub-A", "ses-2\t73\t26\tMCI", "ses-1\t71\t30\tCN", header=header)
    sessions(data, "sub-B", "ses-1\t80.5\tn/a\tAD", "2\t82\t15\tn/a", header=header)
    visits, rejected = read(data)
    assert rejected == []
    assert [(one.patient_id, one.visit_id, one.age_years, one.mmse, one.label, one.sex) for one in visits] == [
        ("sub-A", "ses-1", 71.0, 30, "NC", "female"),
        ("sub-A", "ses-2", 73.0, 26, "MCI", "female"),
        ("sub-B", "ses-1", 80.5, None, "AD", "male"),
        ("sub-B", "ses-2", 82.0, 15, None, "male"),
    ]
    assert [one.years_from_baseline for one in visits] == [0.0, 2.0, 0.0, 1.5]
    assert visits[1].source == "participants.tsv:2, sessions row 1"
    assert visits[1].label_source == "sessions.tsv: diagnosis/dx"


def test_label_and_mmse_of_the_person_belong_to_no_one_of_several_visits(data: Path) -> None:
    people(data, GOOD, GOOD.replace("01", "02"))
    for session in ("ses-a", "ses-b"):
        scan(data, "sub-01", session)
    scan(data, "sub-02", "ses-a")
    visits, rejected = read(data)
    assert rejected == []
    assert [(one.label, one.mmse, one.age_years, one.apoe4_copies) for one in visits] == [
        (None, None, None, 1),
        (None, None, None, 1),
        ("MCI", 24, 75.2, 1),
    ]
    assert visits[0].label_source is None


def test_time_from_dates_which_are_not_kept(data: Path) -> None:
    people(data, GOOD)
    lines = ["ses-b\t1867-06-15T11:00:00", "ses-a\t1868-06-14T11:00:00.000000Z"]
    sessions(data, "sub-01", *lines, header="session_id\tacq_time")
    for session in ("ses-a", "ses-b"):
        scan(data, "sub-01", session)
    visits, _ = read(data)
    assert [(one.visit_id, one.age_years) for one in visits] == [
        ("ses-a", pytest.approx(76.2, abs=0.01)),
        ("ses-b", 75.2),
    ]
    assert visits[0].years_from_baseline == pytest.approx(365 / 365.25)
    assert [one.visit_id for one in choose_visits(visits, "baseline")] == ["ses-b"]
    assert not any("186" in one.model_dump_json() for one in visits)


def test_time_from_session_names(data: Path) -> None:
    people(data, GOOD, GOOD.replace("01\t75.2", "02\t89+"))
    for person in ("sub-01", "sub-02"):
        for session in ("ses-M006", "ses-M018"):
            scan(data, person, session)
    visits, _ = read(data)
    assert [one.years_from_baseline for one in visits] == [0.0, 1.0, 0.0, 1.0]
    assert [one.age_years for one in visits] == [75.2, 76.2, 89.0, 90.0]
    assert [one.at_least for one in visits] == [(), (), ("age_years",), ("age_years",)]


def test_sessions_that_cannot_be_used(data: Path) -> None:
    people(data, GOOD, GOOD.replace("01", "02"))
    for session in ("ses-1", "ses-2", "ses-3"):
        scan(data, "sub-01", session)
    scan(data, "sub-02", "ses-1")
    lines = ["ses-1\t75\tF", "ses-1\t76\tF", "ses-2\told\tF", "ses-3\t77\tM", "ses-4\t78\tF", "a_b\t79\tF", "n/a\t1\tF"]
    sessions(data, "sub-01", *lines, header="session_id\tage\tsex")
    visits, rejected = read(data)
    assert [(one.patient_id, one.visit_id) for one in visits] == [("sub-01", "ses-1"), ("sub-02", "ses-1")]
    place = "participants.tsv:2, sessions row"
    assert rejected == [
        (f"{place} 2", "the same session_id as an earlier row"),
        (f"{place} 6", "session_id is not ses- with letters and digits"),
        (f"{place} 7", "session_id is not ses- with letters and digits"),
        (f"{place} 3", "age_years is not a number"),
        (f"{place} 4", "sex differs between participants.tsv and the sessions table"),
        (f"{place} 5", NO_FILES),
    ]


def test_sessions_table_that_cannot_be_read_sets_its_person_aside(data: Path, tmp_path: Path) -> None:
    people(data, *(GOOD.replace("01", number) for number in ("01", "02", "03", "04", "05")))
    for number in ("01", "02", "03", "04", "05"):
        scan(data, f"sub-{number}", "ses-1")
    sessions(data, "sub-01", "ses-1\t70", header="visit\tage")
    (data / "sub-02/sub-02_sessions.tsv").write_bytes("session_id\tage\n".encode("utf-16"))
    (data / "sub-03/sub-03_sessions.tsv").symlink_to(add(tmp_path, "out.tsv", "session_id\tage\nses-1\t70\n"))
    (data / "sub-04/sub-04_sessions.tsv").symlink_to(data / "gone.tsv")
    visits, rejected = read(data)
    assert [one.patient_id for one in visits] == ["sub-05"]
    unreadable = "the sessions table of this participant is no UTF-8 table with one session_id"
    assert [reason for _, reason in rejected] == [unreadable, unreadable, OUTSIDE, GONE]


def test_rows_with_more_cells_than_columns_are_set_aside(data: Path) -> None:
    """As where a decimal comma stands in a table that separates by commas."""
    for person in ("sub-01", "sub-02"):
        scan(data, person, "ses-1")
    people(data, "sub-01,75,5,29", "sub-02,75,29", header="participant_id,age,mmse")
    sessions(data, "sub-02", "ses-1\t70\t2\tx", "ses-2\t71\t3", header="session_id\tage\tmmse")
    visits, rejected = read(data)
    assert [(one.patient_id, one.age_years, one.mmse) for one in visits] == [("sub-02", None, None)]
    assert rejected == [
        ("participants.tsv:2", TOO_MANY_CELLS),
        ("participants.tsv:3, sessions row 1", TOO_MANY_CELLS),
        ("participants.tsv:3, sessions row 2", NO_FILES),
        ("data: sub- folder 1 by name", "no row in participants.tsv"),
    ]


def test_scan_beside_sessions_is_set_aside(data: Path) -> None:
    people(data, GOOD)
    scan(data, "sub-01")
    scan(data, "sub-01", "ses-1")
    visits, rejected = read(data)
    assert [one.visit_id for one in visits] == ["ses-1"]
    assert rejected == [("participants.tsv:2", "a T1-weighted scan beside the folders of the sessions")]


def test_columns_of_the_configuration(data: Path) -> None:
    scan(data, "sub-01")
    people(data, "sub-01\t0.5", header="participant_id\tcdr")
    label = LabelColumn(columns=("cdr",), codes={"0": "NC", "0.5": "MCI"}, source="CDR (proxy)")
    (visit,), _ = read(data, UsualColumns(label=label))
    assert (visit.label, visit.label_source) == ("MCI", "participants.tsv: CDR (proxy)")
    renamed = UsualColumns(label=LabelColumn(columns=("CDGLOBAL",)))
    with pytest.raises(StudyFileError, match=r"participants\.tsv: no column CDGLOBAL; it has participant_id, cdr"):
        read(data, renamed)


def test_dataset_without_participants(data: Path) -> None:
    with pytest.raises(StudyFileError, match="no file at"):
        read(data)
    add(data, "participants.tsv", "subject\tage\nsub-01\t70\n")
    with pytest.raises(StudyFileError, match=r"participants\.tsv: no column participant_id; it has subject, age"):
        read(data)


def test_rows_in_are_visits_and_rejected(data: Path) -> None:
    people(data, *(GOOD.replace("01", f"{number:02d}").replace("75.2", str(70 + 5 * number)) for number in range(20)))
    for number in range(0, 20, 2):
        scan(data, f"sub-{number:02d}")
    visits, rejected = read(data)
    assert (len(visits), len(rejected)) == (7, 13)
