"""Configs: where a value comes from, and what a person who mistypes one is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from clinical_reasoner.config.loading import (
    ConfigError,
    load_config,
    load_from_cli,
    load_with_options,
    parse_cli,
    to_yaml,
)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Run(Strict):
    path: str
    seed: int = 0


class Local(Strict):
    kind: Literal["local"]
    model: str
    temperature: float = Field(default=0.0, ge=0)


class Remote(Strict):
    kind: Literal["remote"]
    base_url: str


Teacher = Annotated[Local | Remote, Field(discriminator="kind")]


class Arm(Strict):
    name: str
    steps: int = Field(default=10, gt=0)


class Bounds(Strict):
    low: int = 0
    high: int = 9

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Job(Strict):
    run: Run
    teacher: Teacher | None = None
    judge: Local | None = None
    arms: tuple[Arm, ...] = ()
    effects: dict[str, Arm] = {}
    bounds: Bounds = Bounds()
    shuffle: bool = False
    labels: tuple[str, ...] = ("AD",)
    batch: int | Literal["auto"] = "auto"
    note: str | None = None


def write(folder: Path, **files: str) -> Path:
    """Write `name=text` files; the path of the first."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(files))}.yaml"


def lines(file: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(Job, file, overrides)
    return str(caught.value).splitlines()


def test_later_layers_win_and_leave_other_keys_alone(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", deep="run: {path: deep, seed: 1}\nlabels: [x, y, z]")
    write(tmp_path / "base", middle="defaults: [deep.yaml]\nrun: {seed: 2}\nnote: middle")
    write(tmp_path, other="note: other")
    main = write(tmp_path, main="defaults: [base/middle.yaml, other.yaml]\nlabels: [AD]\nshuffle: true")
    config = load_config(Job, main, ["run.seed=3"])
    assert config == Job(run=Run(path="deep", seed=3), note="other", labels=("AD",), shuffle=True)


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("note=a=b", "note", "a=b"),
        ("note=s3://bucket/a:b", "note", "s3://bucket/a:b"),
        ("note=", "note", None),
        ("note=null", "note", None),
        ("note='12'", "note", "12"),
        ("shuffle=true", "shuffle", True),
        ("labels=[a,b]", "labels", ("a", "b")),
        ("batch=4", "batch", 4),
        ("judge={kind: local, model: m}", "judge", Local(kind="local", model="m")),
        ("judge.temperature=1e-3", "judge", Local(kind="local", model="big", temperature=0.001)),
        ("arms.1.steps=7", "arms", (Arm(name="a"), Arm(name="b", steps=7))),
        ("effects.c.steps=7", "effects", {"c": Arm(name="c", steps=7)}),
        ("judge=null", "judge", None),
    ],
)
def test_override_values_are_yaml(tmp_path: Path, override: str, field: str, value: object) -> None:
    file = write(
        tmp_path,
        main="run: {path: p}\nnote: old\njudge: {kind: local, model: big}\narms: [{name: a}, {name: b}]\n"
        "effects: {c: {name: c}}",
    )
    if override.startswith("judge={"):
        value = Local(kind="local", model="m")
    assert getattr(load_config(Job, file, [override]), field) == value


def test_misspelt_key_in_a_defaults_file_names_that_file_and_the_nearest_key(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main="defaults: [middle.yaml]\nrun: {path: p}",
        middle="defaults: [deep.yaml]\nnote: x",
        deep="run: {sede: 3}",
    )
    assert lines(main) == [f"run.sede ({tmp_path / 'deep.yaml'}): unknown key; did you mean run.seed?"]


def test_misspelt_required_key_is_not_also_called_missing(tmp_path: Path) -> None:
    file = write(tmp_path, main="run: {pth: p}")
    assert lines(file) == [f"run.pth ({file}): unknown key; did you mean run.path?"]


def test_misspelt_override_is_blamed_on_the_command_line(tmp_path: Path) -> None:
    file = write(tmp_path, main="run: {path: p}")
    assert lines(file, "rum.seed=1") == ["rum (command line): unknown key; did you mean run?"]


def test_key_without_a_near_one_lists_the_valid_keys_of_its_section(tmp_path: Path) -> None:
    file = write(tmp_path, main="run: {path: p, zzz: 1}")
    assert lines(file) == [f"run.zzz ({file}): unknown key; valid here: path, seed"]


def test_union_names_the_keys_of_the_chosen_member(tmp_path: Path) -> None:
    file = write(tmp_path, main="run: {path: p}\nteacher: {kind: remote, base_ulr: u, model: m}")
    assert lines(file) == [
        f"teacher.base_ulr ({file}): unknown key; did you mean teacher.base_url?",
        f"teacher.model ({file}): unknown key; valid here: kind, base_url",
    ]


def test_union_kind_is_checked(tmp_path: Path) -> None:
    file = write(tmp_path, main="run: {path: p}\nteacher: {kind: lokal, model: m}")
    assert lines(file) == [f"teacher.kind = \"lokal\" ({file}): should be one of 'local', 'remote'"]
    file = write(tmp_path, main="run: {path: p}\nteacher: {model: m}")
    assert lines(file) == [f"teacher.kind: missing; set it in {file} or with teacher.kind=VALUE"]


def test_all_errors_of_a_load_come_together_each_with_its_source(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    main = write(
        tmp_path,
        main="defaults: [base.yaml]\narms: [{name: a}, {name: b, steps: 0}]\neffects: {x: {name: e, step: 1}}\n"
        "labels: {AD: 1}\nshuffle: 1",
        base="run: {seed: '3'}\nshuffle: false\njudge: {kind: local, model: m, temperature: 1}\nnote: ${nope}",
    )
    fix = "correct the name, or write that key into a file (defaults of the models are not seen here)"
    assert sorted(lines(main, "judge.temperature=-1", "batch=fast", "oops")) == sorted(
        [
            "command line: 'oops' is no override; write dotted.key=value",
            f"note ({base}): cannot be resolved: Interpolation key 'nope' not found; {fix}",
            f"arms.1.steps = 0 ({main}): should be greater than 0",
            f"effects.x.step ({main}): unknown key; did you mean effects.x.steps?",
            f"labels ({main}): should be a list",
            f"shuffle = 1 ({main}): should be a valid boolean",
            f"run.path: missing; set it in {main} or with run.path=VALUE",
            f'run.seed = "3" ({base}): should be a valid integer',
            "judge.temperature = -1 (command line): should be greater than or equal to 0",
            "batch = \"fast\" (command line): should be a valid integer or should be 'auto'",
        ]
    )


def test_cross_field_error_names_the_section(tmp_path: Path) -> None:
    file = write(tmp_path, main="run: {path: p}\nbounds: {low: 5}")
    assert lines(file, "bounds.high=2") == ["bounds (command line): low 5 is above high 2"]


def test_replaced_section_forgets_where_its_old_keys_came_from(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main="defaults: [base.yaml]\njudge: ${teacher}",
        base="run: {path: p}\nteacher: {kind: local, model: m, temperature: -1}\njudge: {kind: local, temperature: -1}",
    )
    base = tmp_path / "base.yaml"
    assert lines(main) == [
        f"teacher.temperature = -1 ({base}): should be greater than or equal to 0",
        f"judge.temperature = -1 ({main}): should be greater than or equal to 0",
    ]


def test_interpolation_sees_overrides_environment_and_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLINICAL_REASONER_TEST_LABEL", "NC")
    file = write(
        tmp_path,
        main="run: {path: p, seed: 4}\nnote: ${run.path}/x\nbatch: ${run.seed}\narms: [{name: '${..note}'}]\n"
        "labels: ['${oc.env:CLINICAL_REASONER_TEST_LABEL}', '\\${kept}']",
    )
    config = load_config(Job, file, ["run.path=s3://b", "arms=[{name: '${note}'}]"])
    assert (config.note, config.batch, config.arms[0].name) == ("s3://b/x", 4, "s3://b/x")
    assert config.labels == ("NC", "${kept}")


def test_circle_of_interpolations_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, main="run: {path: '${note}'}\nnote: ${run.path}\njudge: '${bounds}'\nbounds: '${judge}'")
    assert [line.split(" ")[0] for line in lines(file)] == ["run.path", "note", "judge", "bounds"]
    nested = write(tmp_path, main="run: {path: '${bounds}'}\nbounds: {low: '${run}'}")
    assert all("circle" in line for line in lines(nested) if "cannot be resolved" in line)


def test_circle_of_defaults_is_an_error(tmp_path: Path) -> None:
    main = write(tmp_path, main="defaults: [other.yaml]\nrun: {path: p}", other="defaults: [main.yaml]")
    other = tmp_path / "other.yaml"
    assert lines(main) == [
        f"{other}: `defaults`: {main} closes a circle: {main} -> {other} -> {main}; remove one of these entries"
    ]


def test_two_files_may_share_a_default(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main="defaults: [a.yaml, b.yaml]",
        a="defaults: [base.yaml]",
        b="defaults: [base.yaml]",
        base="run: {path: p}",
    )
    assert load_config(Job, main) == Job(run=Run(path="p"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: [1", "main.yaml:2:1: not readable as YAML"),
        ("note: a\nnote: b", "main.yaml:2:1: not readable as YAML: found duplicate key note"),
        ("- run", "main.yaml: holds a list"),
        ("3", "main.yaml: not readable as a mapping"),
        ("note: ${x", "main.yaml: note: not readable as an interpolation"),
        ("defaults: base.yaml", 'main.yaml: `defaults` is "base.yaml"; write a list'),
        ("defaults: [nope.yaml]", "nope.yaml does not exist"),
        ("run:\n  path: ???", "run.path=VALUE"),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (line,) = lines(write(tmp_path, main=text))
    assert message in line
    assert str(tmp_path / "main.yaml") in line


def test_missing_file_is_named(tmp_path: Path) -> None:
    (line,) = lines(tmp_path / "none.yaml")
    assert f"{tmp_path / 'none.yaml'} does not exist" in line


@pytest.mark.parametrize(
    "override", ["note", "=1", "run..seed=1", "note=[a", "note=${x", "arms.4.name=b", "arms.x.0=1"]
)
def test_bad_override_is_quoted(tmp_path: Path, override: str) -> None:
    file = write(tmp_path, main="run: {path: p}\narms: [{name: a}]")
    (line,) = lines(file, override)
    assert line.startswith("command line: ")
    assert override.split("=")[0] in line


def test_list_and_mapping_in_the_same_place_are_judged_by_the_model(tmp_path: Path) -> None:
    main = write(tmp_path, main="defaults: [base.yaml]\nlabels: [a]", base="run: {path: p}\nlabels: {a: 1}")
    assert load_config(Job, main).labels == ("a",)


def test_yaml_of_a_config_loads_to_the_same_config(tmp_path: Path) -> None:
    config = Job(
        run=Run(path="p", seed=3),
        teacher=Remote(kind="remote", base_url="http://x:1/v1"),
        judge=Local(kind="local", model="1e3", temperature=1e-5),
        arms=(Arm(name="yes"), Arm(name="${kept}")),
        effects={"on": Arm(name="2020-01-01")},
        note="null",
    )
    text = to_yaml(config)
    assert load_config(Job, write(tmp_path, again=text)) == config
    top = [line.split(":")[0] for line in text.splitlines() if line[0] not in " -"]
    assert top == list(Job.model_fields)


def test_command_line_in_any_order() -> None:
    args = parse_cli(["a.b=1", "--config", "f.yaml", "c=-2", "--dry-run", "d=x y"], "test")
    assert (args.config, args.overrides, args.dry_run) == ("f.yaml", ("a.b=1", "c=-2", "d=x y"), True)


def test_dry_run_prints_the_resolved_config_and_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, main="run: {path: p}\nnote: ${run.path}/x")
    with pytest.raises(SystemExit) as stop:
        load_from_cli(Job, ["--config", str(file), "run.path=q", "--dry-run"], "test")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert load_config(Job, write(tmp_path, again=printed)) == Job(run=Run(path="q"), note="q/x")
    assert load_from_cli(Job, ["--config", str(file)], "test") == Job(run=Run(path="p"), note="p/x")


def test_bad_config_stops_a_job_with_the_message_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, main="run: {path: p}")
    with pytest.raises(SystemExit) as stop:
        load_from_cli(Job, ["--config", str(file), "nte=1", "--dry-run"], "test")
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", "nte (command line): unknown key; did you mean note?\n")


def test_import_stays_light() -> None:
    heavy = "torch ray vllm pandas pyarrow transformers numpy"
    code = (
        "import sys, clinical_reasoner.config.loading; "
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    platform = Path(__file__).parents[3] / "platform"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(platform)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_job_with_options_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, main="run: {path: p}\nnote: ${run.path}/x")
    arguments = ["--name", "a", "run.path=q", "--config", str(file)]
    config, options = load_with_options(Job, arguments, "test", lambda parser: parser.add_argument("--name"))
    assert (config.run.path, options.name) == ("q", "a")
    with pytest.raises(SystemExit):
        load_from_cli(Job, arguments, "test")
    assert "--name" in capsys.readouterr().err
