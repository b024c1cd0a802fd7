"""Which base fits which family, and tokenizers that know no line break."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from clinical_reasoner.config.student import Family, StudentConfig
from clinical_reasoner.distillation.collating import TokenTexts
from clinical_reasoner.distillation.families import answer_tokens, check_family, load_plain_base, student_processor
from clinical_reasoner.errors import UserError
from clinical_reasoner.llm.prompting import render_answer
from clinical_reasoner.task import DiagnosisTask
from tests.bases import REFERENCE, small_bert, small_t5


def settings(base: str | Path, family: Family, max_length: int = 512) -> StudentConfig:
    return StudentConfig(
        base=str(base), family=family, arms=("label_only",), epochs=1, learning_rate=0.01, max_length=max_length
    )


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, str]:
    folder = tmp_path_factory.mktemp("bases")
    return {"decoder": str(REFERENCE), "encoder_decoder": small_t5(folder), "encoder": small_bert(folder)}


@pytest.mark.parametrize("family", ["decoder", "encoder_decoder", "encoder"])
@pytest.mark.parametrize("given", ["decoder", "encoder_decoder", "encoder"])
def test_base_of_another_family_is_refused(bases: dict[Family, str], given: Family, family: Family) -> None:
    if given == family:
        check_family(settings(bases[given], family))
        return
    with pytest.raises(UserError, match=rf"family='{family}', but .* set student.family={given}"):
        check_family(settings(bases[given], family))


def test_prompt_must_fit_into_the_positions_of_an_encoder(bases: dict[Family, str]) -> None:
    with pytest.raises(UserError, match=r"reads 512 tokens; set student\.max_length=512"):
        check_family(settings(bases["encoder"], "encoder", max_length=600))


def without_line_breaks(base: str, folder: Path) -> str:
    """The base with a tokenizer as T5 has it: any white space is one blank, which belongs to the word behind it."""
    model = AutoTokenizer.from_pretrained(base)
    pieces = [(model.pad_token, 0.0), (model.eos_token, 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [(chr(code), -4.0) for code in range(33, 127)]
    built = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    built.normalizer = normalizers.Replace("\n", " ")
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token=model.pad_token, eos_token=model.eos_token, unk_token="<unk>"
    )
    for file in Path(base).glob("*"):
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_line_breaks_of_an_answer_are_kept(bases: dict[Family, str], task: DiagnosisTask, tmp_path: Path) -> None:
    base = without_line_breaks(bases["encoder_decoder"], tmp_path)
    student = settings(base, "encoder_decoder")
    plain, tokenizer = AutoTokenizer.from_pretrained(base), student_processor(base, student)
    assert "\n" not in plain.decode(plain("One.\nTwo.")["input_ids"])
    answer = render_answer("diagnose", "She is old.", task.label_names[1], task)
    ids = answer_tokens([{"role": "assistant", "content": answer}], tokenizer)
    place = TokenTexts(tokenizer).diagnosis_place(ids, "diagnose", task)
    assert place is not None and tokenizer.decode([ids[place]]).strip() == task.options[1]
    model = load_plain_base(student, base, task, tokenizer)
    assert model.get_input_embeddings().num_embeddings >= len(tokenizer)
