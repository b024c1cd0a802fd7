"""Bounds of single configuration models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from clinical_reasoner.asks import ASK_KINDS, Ask
from clinical_reasoner.config.cohort import EvidenceConfig, TableCohort
from clinical_reasoner.config.loading import ConfigError, load_config
from clinical_reasoner.config.pipeline import PipelineConfig
from clinical_reasoner.config.rationales import LENGTHS, RationalesConfig
from clinical_reasoner.config.reference import ReferenceConfig, ReferenceRecipe, VisionReferenceConfig
from clinical_reasoner.config.teacher import (
    THROUGHPUT,
    DeploymentConfig,
    EndpointConfig,
    EngineConfig,
    TeacherConfig,
)
from clinical_reasoner.records import Split

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("cut_points", [(-2.0, -1.0), (-1.0, -1.0), (-1.0, float("nan"))])
def test_cut_points_must_descend(cut_points: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="must descend"):
        EvidenceConfig(cut_points=cut_points)


@pytest.mark.parametrize("cut_points", [(-1.0,), (-1.0, -2.0), (0.5, -1.0, -2.5)])
def test_descending_cut_points(cut_points: tuple[float, ...]) -> None:
    assert EvidenceConfig(cut_points=cut_points).cut_points == cut_points


@pytest.mark.parametrize("name", ["synthetic", "synthetic-clinic", "Synthetic patients"])
def test_own_cohort_is_not_called_synthetic(name: str) -> None:
    with pytest.raises(ValidationError, match="must not start with 'synthetic'"):
        TableCohort(kind="table", path="patients.csv", name=name)
    assert TableCohort(kind="table", path="patients.csv", name="memory clinic").name == "memory clinic"


def test_students_may_learn_from_reasoned_rationales_alone() -> None:
    assert asked(run_config("asks.rationalize=[]", "asks.diagnose=[train, test]").rationales)["rationalize"] == ()


def test_settings_of_an_engine_do_not_count_where_another_one_answers() -> None:
    there = {"model": "m", "deployment": {"name": "engine-teacher"}}
    own = TeacherConfig.model_validate(there | {"engine": {"max_model_len": 512, "dtype": "float16"}})
    assert own.identity() == TeacherConfig.model_validate(there).identity()
    silent = {"engine": {"chat_template_kwargs": {"enable_thinking": False}}}
    assert TeacherConfig.model_validate(there | silent).identity() != own.identity()
    assert TeacherConfig.model_validate(there | {"deployment": {"name": "x"}}).identity() != own.identity()


@pytest.mark.parametrize(
    ("settings", "batches"),
    [({}, (8, 16)), ({"max_num_seqs": 1}, (1, 2)), ({"max_num_seqs": 1024}, (32, 64)), ({"batch_size": 64}, (64, 2))],
)
def test_batches_follow_the_capacity_of_the_engine(settings: dict[str, int], batches: tuple[int, int]) -> None:
    assert EngineConfig(**settings).batches() == batches


def test_answers_do_not_depend_on_how_fast_an_engine_is() -> None:
    assert set(EngineConfig.model_fields) >= set(THROUGHPUT)
    small = EngineConfig(max_num_seqs=1, replicas=2, batch_size=1, concurrent_batches=1, gpus=1, cpus=2, kv_cache_gib=4)
    assert small.identity() == EngineConfig().identity()
    assert small.identity().keys() == {"dtype", "max_model_len", "chat_template_kwargs", "engine_kwargs"}
    teacher = TeacherConfig(model="m", engine=small)
    assert teacher.identity() == TeacherConfig(model="m").identity()
    assert teacher.identity().keys() == set(TeacherConfig.model_fields) - {"base_url", "endpoint", "deployment"}
    served = TeacherConfig(model="m", base_url="http://127.0.0.1:1/v1")
    patient = served.model_copy(update={"endpoint": EndpointConfig(max_retries=9, timeout_s=1, requests_per_minute=5)})
    assert served.identity() == patient.identity() != TeacherConfig(model="m").identity()


@pytest.mark.parametrize(
    "changed",
    [
        {"dtype": "float16"},
        {"max_model_len": 1024},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"engine_kwargs": {"quantization": "fp8"}},
    ],
)
def test_answers_depend_on_the_rest_of_an_engine(changed: dict[str, Any]) -> None:
    assert EngineConfig(**changed).identity() != EngineConfig().identity()


def run_config(*overrides: str) -> PipelineConfig:
    return load_config(PipelineConfig, CONFIGS / "demo.yaml", [f"rationales.{override}" for override in overrides])


def asked(config: RationalesConfig) -> dict[Ask, tuple[Split, ...]]:
    return {ask: config.splits_of(ask) for ask in ASK_KINDS}


def test_ask_that_is_not_named_keeps_its_default() -> None:
    default = {
        "rationalize": ("train",),
        "diagnose": ("validation", "test"),
        "diagnose_zero_shot": (),
        "diagnose_label_first": (),
        "direct": ("test",),
        "explain": (),
    }
    assert asked(RationalesConfig()) == default
    demo = default | {"diagnose": ("train", "validation", "test")}
    assert asked(run_config().rationales) == demo
    named = asked(run_config("asks.diagnose_zero_shot=[validation, test]", "asks.direct=[]").rationales)
    assert named == demo | {"diagnose_zero_shot": ("validation", "test"), "direct": ()}
    assert asked(RationalesConfig(asks={"direct": ("train",)})) == default | {"direct": ("train",)}


@pytest.mark.parametrize("name", ["own_cohort", "own_models"])
def test_teacher_of_ones_own_run_is_asked_what_the_operating_point_needs(name: str) -> None:
    given = {"own_cohort": "cohort.path=patients.csv", "own_models": "run.path=runs/mine"}[name]
    config = load_config(PipelineConfig, CONFIGS / f"{name}.yaml", [given])
    assert {"validation", "test"} <= set(config.rationales.splits_of(config.serving.teacher_ask))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["samples=5"], "5 samples of 'rationalize', but teacher.sampling.temperature is 0.* set it above 0"),
        (["samples={direct: 2}"], "2 samples of 'direct', but teacher.sampling.temperature is 0"),
        (["samples=0"], "rationales.samples = 0 .*greater than or equal to 1"),
        (["samples={direct: 0}"], "rationales.samples.direct = 0 .*greater than or equal to 1"),
        (["samples={diagnos: 2}"], "rationales.samples.diagnos .*'rationalize', 'diagnose'"),
        (["asks.diagnos=[test]"], "rationales.asks.diagnos .*'rationalize', 'diagnose'"),
        (["asks.direct=[tests]"], "rationales.asks.direct.0 .*'train', 'validation' or 'test'"),
        (["asks.explain=[train]"], "'explain' is a task of students"),
        (["asks.explain=[]"], "'explain' is a task of students"),
        (["asks.rationalize=[]", "asks.diagnose=[test]"], "no ask .* that gives a rationale .* has 'train'"),
        (["exemplar_choice=best"], "rationales.exemplar_choice .*'fixed', 'random' or 'nearest'"),
        (["exemplar_order=label"], "rationales.exemplar_order .*'labels_in_turn', 'file' or 'shuffled'"),
        (["length=long"], "rationales.length .*'brief', 'standard' or 'detailed' or should be a valid integer"),
        (["length=5"], "rationales.length = 5 .*greater than or equal to 20"),
        (["length=detailed"], "up to 500 words, about 667 tokens, but teacher.sampling.max_tokens=320 .*=667 or more"),
        (["length=241"], "up to 241 words, about 322 tokens"),
    ],
)
def test_what_a_teacher_cannot_be_asked(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_config(*overrides)


def test_samples_for_all_asks_or_for_some() -> None:
    warm = ["teacher.sampling.temperature=0.7"]
    one = load_config(PipelineConfig, CONFIGS / "demo.yaml", [*warm, "rationales.samples=5"]).rationales
    some = load_config(PipelineConfig, CONFIGS / "demo.yaml", [*warm, "rationales.samples={diagnose: 5}"]).rationales
    assert (one.samples_of("diagnose"), one.samples_of("direct")) == (5, 5)
    assert (some.samples_of("diagnose"), some.samples_of("direct")) == (5, 1)
    assert RationalesConfig().samples_of("rationalize") == 1
    assert run_config("samples={diagnose: 1}").rationales.samples_of("diagnose") == 1  # alike is no matter then


def teachers_config(teachers: str, *overrides: str) -> PipelineConfig:
    return load_config(PipelineConfig, CONFIGS / "demo.yaml", [f"more_teachers={teachers}", *overrides])


def test_all_teachers_by_their_name_in_the_tables() -> None:
    config = teachers_config("{big-7b: {model: org/big}, Other_1: {model: org/big}}", "teacher.model=first")
    assert [(name, teacher.model) for name, teacher in config.teachers().items()] == [
        ("first", "first"),
        ("big-7b", "org/big"),
        ("Other_1", "org/big"),
    ]
    assert list(run_config().teachers()) == [run_config().teacher.model]


WARM = "{model: m, sampling: {temperature: 0.5}}"


@pytest.mark.parametrize(
    ("teachers", "overrides", "message"),
    [
        ("{first: {model: m}}", [], "'first' is the name of another model in the tables"),
        ("{teacher: {model: m}}", [], "'teacher' is the name of another model in the tables"),
        ("{student: {model: m}}", [], "'student' is the name of another model in the tables"),
        ("{org/big: {model: m}}", [], "more_teachers.org/big"),
        ("{Bayes rule: {model: m}}", [], "more_teachers.Bayes rule"),
        ("{-big: {model: m}}", [], "more_teachers.-big"),
        ("{big: {engine: {}}}", [], "more_teachers.big.model"),
        (
            "{big: {model: m}}",
            ["rationales.samples=2", "teacher.sampling.temperature=0.5"],
            "but more_teachers.big.sampling.temperature is 0.* more_teachers.big.sampling.temperature=0.7",
        ),
        (f"{{big: {WARM}}}", ["rationales.samples=2"], "but teacher.sampling.temperature is 0"),
        (
            "{big: {model: m, sampling: {max_tokens: 100}}}",
            ["rationales.length=120"],
            "but more_teachers.big.sampling.max_tokens=100 .* more_teachers.big.sampling.max_tokens=160 or more",
        ),
        (
            "{big: {model: m, base_url: 'http://127.0.0.1:1/v1', deployment: {name: engine}}}",
            [],
            "base_url and deployment both say where the teacher runs",
        ),
    ],
)
def test_teachers_that_cannot_be(teachers: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        teachers_config(teachers, "teacher.model=first", *overrides)


def test_teachers_that_all_give_samples() -> None:
    config = teachers_config(f"{{big: {WARM}}}", "rationales.samples=2", "teacher.sampling.temperature=0.5")
    assert config.rationales.samples_of("direct") == 2


def test_answers_of_a_deployment_depend_on_its_name_and_not_on_how_it_is_asked() -> None:
    def identity(**deployment: Any) -> dict[str, Any]:
        return TeacherConfig(model="m", deployment=DeploymentConfig(**{"name": "engine"} | deployment)).identity()

    assert identity() == identity(at_a_time=3, timeout_s=9)
    assert identity()["deployment"] == "diagnosis/engine"
    assert len({str(one) for one in (identity(), identity(name="other"), identity(application="own"))}) == 3
    assert identity() != TeacherConfig(model="m").identity()


def test_prices_change_no_answer() -> None:
    def identity(**endpoint: Any) -> dict[str, Any]:
        served = TeacherConfig(model="m", base_url="http://127.0.0.1:1/v1", endpoint=EndpointConfig(**endpoint))
        return served.identity()

    assert identity() == identity(prompt_price=1.0, output_price=2.0, key_variable="OTHER_KEY")
    assert identity() != identity(logprobs=False)


@pytest.mark.parametrize(
    ("length", "words", "most"),
    [
        (None, None, 0),
        ("brief", "50 to 120", 120),
        ("standard", "200 to 300", 300),
        ("detailed", "350 to 500", 500),
        (150, "about 150", 150),
    ],
)
def test_length_in_words(length: Any, words: str | None, most: int) -> None:
    settings = RationalesConfig(length=length)
    assert (settings.words(), settings.most_words()) == (words, most)
    assert LENGTHS["standard"][0] < 269.4 < LENGTHS["standard"][1]  # the method's paper


def test_seeds_of_a_recipe_are_all_different() -> None:
    recipe = load_config(ReferenceConfig, CONFIGS / "reference/teacher.yaml", ["seed=5"])
    assert recipe.text_seeds[:3] == (5, 105, 205)
    assert len(set(recipe.text_seeds)) == len(recipe.phases)
    assert recipe.seed + 1 not in recipe.text_seeds


def test_model_card_needs_patients() -> None:
    raw = load_config(ReferenceConfig, CONFIGS / "reference/teacher.yaml").model_dump()
    with pytest.raises(ValidationError, match="evaluation_patients"):
        ReferenceConfig.model_validate(raw | {"evaluation_patients": 0})


def test_recipe_is_told_by_its_role() -> None:
    for role, kind in (("teacher", ReferenceConfig), ("student", ReferenceConfig), ("vlm", VisionReferenceConfig)):
        recipe = load_config(ReferenceRecipe, CONFIGS / f"reference/{role}.yaml").root
        assert type(recipe) is kind and recipe.role == role


def test_errors_of_a_recipe_name_its_own_keys() -> None:
    with pytest.raises(ConfigError, match=r"^vision.widht \(command line\): unknown key; did you mean vision.width\?$"):
        load_config(ReferenceRecipe, CONFIGS / "reference/vlm.yaml", ["vision.widht=3"])
    with pytest.raises(ConfigError, match=r"role = \"painter\" .*should be one of 'teacher', 'student', 'vlm'"):
        load_config(ReferenceRecipe, CONFIGS / "reference/vlm.yaml", ["role=painter"])
    with pytest.raises(ConfigError, match="width 100 is not a multiple of heads 3"):
        load_config(ReferenceRecipe, CONFIGS / "reference/vlm.yaml", ["vision.width=100", "vision.heads=3"])


def test_seeds_of_recipes_and_of_the_demo_are_all_different() -> None:
    texts = [load_config(ReferenceConfig, CONFIGS / f"reference/{role}.yaml") for role in ("teacher", "student")]
    seeing = load_config(VisionReferenceConfig, CONFIGS / "reference/vlm.yaml")
    assert len(set(seeing.text_seeds)) == len(seeing.phases)
    own = {seeing.seed, seeing.seed + 1, *seeing.text_seeds}
    others = {seed for recipe in texts for seed in (recipe.seed + 1, *recipe.text_seeds)}
    assert own.isdisjoint({7, 8} | others)
