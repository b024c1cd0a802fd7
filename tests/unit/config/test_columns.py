"""The configuration of column maps is strict, and defaults stay beside what is set."""

from __future__ import annotations

from pathlib import Path

import pytest

from clinical_reasoner.config.columns import TableMapping, UsualColumns
from clinical_reasoner.config.loading import ConfigError, load_config


def load(folder: Path, text: str) -> TableMapping:
    file = folder / "mapping.yaml"
    file.write_text(text, encoding="utf-8")
    return load_config(TableMapping, file)


@pytest.mark.parametrize(
    "lines",
    [
        "unknown: {columns: [x]}",
        "sex: {columns: []}",
        "sex: {columns: [x], codes: {1: man}}",
        "age_years: {columns: [x], unit: decades}",
        "apoe4_copies: {columns: [x], codes: {a: 3}}",
        "measures: {hippocampus: {columns: [x], unit: w}}",
        "measures: {mta: {columns: [a, b], unit: rating}}",
        "measures: {Left-Hippocampus: {columns: [x], unit: mm3}}",
    ],
)
def test_mapping_is_strict(tmp_path: Path, lines: str) -> None:
    with pytest.raises(ConfigError):
        load(tmp_path, f"patient_id: {{columns: [id]}}\n{lines}")


def test_usual_columns_keep_their_defaults_beside_a_setting(tmp_path: Path) -> None:
    file = tmp_path / "columns.yaml"
    file.write_text("label: {columns: [cdr], codes: {0: NC}}", encoding="utf-8")
    columns = load_config(UsualColumns, file)
    assert columns.label is not None and columns.label.columns == ("cdr",)
    assert columns.age_years == UsualColumns().age_years
