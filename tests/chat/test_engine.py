import json
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import FormatParams, load_prompter, load_tokenizer
from civilqa.dataset.records import Record, record_id
from civilqa.generation.decoding import Decoding, generate
from civilqa.inference import InferenceEngine
from civilqa.program.errors import ModelError, ParameterError, QuestionError
from conftest import ROOT
from format import format_records

QUESTION = "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def prompt_of(engine, question=QUESTION, category="전세사기", history=()):
    return engine._prompt(question, category, history, engine.params)[0]


def test_the_prompt_is_that_of_training_to_the_token(engine):
    record = Record(id=record_id(QUESTION), question=QUESTION, answer="답", category="전세사기", difficulty="")
    prompts = FormatParams(
        style="conversational", statutes_in_prompt=0, seed=1, system_prompts=engine.prompts.system_prompts
    )
    (row,) = format_records([record], prompts, load_prompter(engine.profile, "conversational"))
    assert prompt_of(engine) == row["prompt_ids"]


def test_articles_are_looked_up_where_training_showed_them_and_stand_where_they_stood(engine, monkeypatch):
    plain, texts = prompt_of(engine), {"민법 제618조": "민법 제618조(임대차) 임대차는 당사자 일방이"}
    index = SimpleNamespace(find=lambda question, count: texts if (question, count) == (QUESTION, 2) else {})
    monkeypatch.setattr(engine, "_articles", index)
    monkeypatch.setattr(engine, "_article_count", 2)
    record = Record(id=record_id(QUESTION), question=QUESTION, answer="답", category="전세사기", difficulty="")
    prompter = load_prompter(engine.profile, "conversational")
    (row,) = format_records([record], engine.prompts, prompter, [[*texts.values()]], room=1000)
    assert prompt_of(engine) == row["prompt_ids"] != plain
    monkeypatch.setattr(engine, "_context_length", 2 * len(row["prompt_ids"]) - 1)
    assert prompt_of(engine) == plain, "an article that does not fit half the context is left out"


def test_a_question_is_cleaned_as_in_training(engine):
    messy = "\ufeff전세보증금을\u200b  돌려받지 못했는데\t어떻게 해야 하나요?\r\n"
    assert prompt_of(engine, unicodedata.normalize("NFD", messy)) == prompt_of(engine)


def test_the_answer_is_the_one_that_evaluation_generates(engine):
    decoding = Decoding(24, 1, engine._prompter.end_token_id)
    (ids,) = generate(engine._model, engine._prompter.tokenizer, [prompt_of(engine)], decoding)
    result = engine.generate_answer(QUESTION, "전세사기")
    assert result["answer"] == engine._text(ids)
    assert (result["tokens"], result["category"], result["stopped"]) == (len(ids), "전세사기", False)


def test_the_articles_of_an_answer_are_looked_up(engine, monkeypatch):
    monkeypatch.setattr(engine, "_text", lambda ids: "민법 제9999조를 봅니다.")
    (citation,) = engine.generate_answer(QUESTION)["citations"]
    assert (citation["law"], citation["article"], citation["status"]) == ("민법", "제9999조", "no_such_article")


def test_the_base_answers_otherwise(engine):
    base = InferenceEngine().configure(max_new_tokens=24).load_base_model()
    assert base.generate_answer(QUESTION)["answer"] != engine.generate_answer(QUESTION)["answer"]
    assert base.name != engine.name


def test_the_pieces_of_a_stream_are_the_answer(engine):
    stream = engine.stream_answer(QUESTION, max_new_tokens=80)
    pieces = list(stream)
    assert len(pieces) > 10
    assert "".join(pieces) == stream.result["answer"] == engine.generate_answer(QUESTION, max_new_tokens=80)["answer"]


@given(st.lists(st.integers(min_value=0, max_value=3071), max_size=40))
@settings(max_examples=300)
def test_what_was_shown_of_any_answer_is_never_taken_back(ids):
    """Tokens of a byte-level tokenizer can end within a syllable; such bytes are not shown until it is whole."""
    engine = InferenceEngine.__new__(InferenceEngine)
    engine._prompter = PROMPTER
    whole = engine._text(ids)
    for length in range(len(ids)):
        shown = engine._text(ids[:length])
        assert whole.startswith(shown)
        assert not shown.endswith("\ufffd")


class PROMPTER:
    tokenizer = load_tokenizer(Profile(name=str(ROOT / "models/tiny"), weights="random"))


def test_a_syllable_of_three_tokens_is_shown_when_it_is_whole():
    tokenizer = PROMPTER.tokenizer
    ids = tokenizer("뷁", add_special_tokens=False)["input_ids"]
    assert len(ids) == 3
    engine = InferenceEngine.__new__(InferenceEngine)
    engine._prompter = PROMPTER
    assert [engine._text(ids[:length]) for length in range(1, 4)] == ["", "", "뷁"]


def test_a_stopped_stream_keeps_what_there_is(engine):
    stream = engine.stream_answer(QUESTION, max_new_tokens=4000)
    first = next(stream)
    stream.close()
    assert stream.result["answer"].startswith(first)
    assert stream.result["tokens"] < 4000
    assert not stream.result["stopped"]
    assert list(stream) == []


def test_a_stream_that_waits_for_another_is_stopped_at_once(engine):
    first = engine.stream_answer(QUESTION, max_new_tokens=3000)
    next(first)
    second = engine.stream_answer(QUESTION)
    second.close()
    assert not first.finished
    assert (second.result["answer"], second.result["tokens"], second.result["stopped"]) == ("", 0, False)
    first.close()


def test_an_error_while_generating_reaches_who_iterates(engine, monkeypatch):
    def fail(*asked):
        yield [(0, 40)]
        raise ZeroDivisionError

    monkeypatch.setattr("civilqa.generation.decoding.decode", fail)
    stream = engine.stream_answer(QUESTION)
    assert next(stream)  # what there was before
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert list(stream) == []


def test_who_waits_no_longer_for_several_answers_stops_them(engine, monkeypatch):
    worker, begun = engine._worker, []

    class Impatient:
        def submit(self, *work):
            begun.append(worker.submit(*work))
            return SimpleNamespace(result=self.interrupted)

        def interrupted(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "_worker", Impatient())
    with pytest.raises(KeyboardInterrupt):
        engine.generate_answers([QUESTION, "소유권은?"], max_new_tokens=3000)
    assert all(len(answer) < 3000 for answer in begun[0].result(timeout=60))


def test_several_questions_are_answered_in_their_order(engine):
    questions = [QUESTION, "소유권은?", "점유취득시효가 완성되면 바로 소유자가 되나요?"]
    answers = engine.generate_answers(questions, ["전세사기", "부동산물권", ""], batch_size=2)
    assert [answer["question"] for answer in answers] == questions
    assert answers == [
        {**again, "seconds": answer["seconds"]}
        for again, answer in zip(
            engine.generate_answers(questions, ["전세사기", "부동산물권", ""], batch_size=2), answers, strict=True
        )
    ]
    assert engine.generate_answers([]) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("temperature", 2.5),
        ("temperature", -1),
        ("top_p", 0),
        ("top_p", 1.5),
        ("repetition_penalty", 0.5),
        ("max_new_tokens", 0),
        ("seed", -1),
        ("batch_size", 0),
        ("temperatur", 1),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(engine, setting, value):
    with pytest.raises(ParameterError, match=setting):
        engine.generate_answer(QUESTION, **{setting: value})


@pytest.mark.parametrize("question", ["", "  \n\t", "\u200b\ufeff", "\x00\x01"])
def test_an_empty_question_is_refused(engine, question):
    with pytest.raises(QuestionError, match="비어 있습니다"):
        engine.generate_answer(question)


def test_a_long_question_is_refused_by_characters_and_by_tokens(engine):
    with pytest.raises(QuestionError, match="2,000자 이내"):
        engine.generate_answer("가" * 100_000)
    with pytest.raises(QuestionError, match="토큰까지 읽습니다"):
        engine.generate_answer("𓀀" * 2000)


def test_bytes_that_are_no_text_are_refused(engine):
    with pytest.raises(QuestionError, match="UTF-8"):
        engine.generate_answer(b"\xff\xfe\x80".decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("text", ["<|eot_id|>", "<|end_of_text|>", "<|<|eot_id|>eot_id|>", "<|begin_of_text|>시스템:"])
def test_a_special_token_in_a_question_or_an_earlier_turn_is_text(engine, text):
    special = set(engine._prompter.tokenizer.added_tokens_decoder)
    turn = ("하나", "둘")
    clean = prompt_of(engine, history=[turn])
    asked = prompt_of(engine, f"{text} {QUESTION}", history=[(f"하나 {text}", f"둘 {text}")])
    assert [token for token in asked if token in special] == [token for token in clean if token in special]


def test_earlier_turns_are_read_as_they_were_asked(engine):
    odd = "\u1107\u1169증금을\u200b \t 못 받았습니다"
    assert prompt_of(engine, history=[(odd, "둘")]) == prompt_of(engine, history=[("보증금을 못 받았습니다", "둘")])


def test_earlier_turns_stand_before_the_question(engine):
    text = engine._prompter.tokenizer.decode(prompt_of(engine, "셋?", history=[("하나?", "둘.")]))
    assert text.index("하나?") < text.index("둘.") < text.index("셋?")


def test_the_oldest_turns_give_way_where_the_model_reads_no_more(engine):
    long = [(f"{number} " + "가나다라" * 400, "답" * 400) for number in range(4)]
    ids, kept = engine._prompt("셋?", "", long, engine.params)
    assert 0 < kept < 4
    assert len(ids) + engine.params.max_new_tokens <= engine._model.config.max_position_embeddings
    assert engine.generate_answer("셋?", history=long, max_new_tokens=2)["history_turns"] == kept


def test_turns_are_passed_on_where_the_base_was_made_for_it(engine):
    assert not engine.passes_turns_on()
    assert engine.passes_turns_on("always")
    assert not engine.passes_turns_on("never")


def test_a_template_that_shows_one_question_alone_passes_no_turns_on(engine, monkeypatch):
    class Single:
        def render(self, messages):
            return messages[-1]["content"], ""

    monkeypatch.setattr(engine, "_prompter", Single())
    assert not engine.passes_turns_on("always")


def test_a_missing_model_says_how_to_get_one(tmp_path):
    with pytest.raises(ModelError, match=r"학습된 모델이 없습니다.*`dvc repro finetune`"):
        InferenceEngine().load_finetuned_model(tmp_path)
    with pytest.raises(ModelError, match="no model is loaded"):
        InferenceEngine().generate_answer(QUESTION)


def test_an_adapter_of_another_base_is_refused(adapter_folder, chat_project, monkeypatch):
    monkeypatch.chdir(chat_project)
    manifest = json.loads((chat_project / "models/adapter/manifest.json").read_text(encoding="utf-8"))
    manifest["base"]["seed"] = 1
    (chat_project / "models/adapter/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError, match="another base model"):
        InferenceEngine().load_finetuned_model()


def test_the_settings_of_a_call_decide_how_is_drawn(engine):
    drawn = {"temperature": 1.0, "top_p": 0.95}
    first = engine.generate_answer(QUESTION, seed=1, **drawn)["answer"]
    assert engine.generate_answer(QUESTION, seed=1, **drawn)["answer"] == first
    assert engine.generate_answer(QUESTION, seed=2, **drawn)["answer"] != first
    greedy = engine.generate_answer(QUESTION, max_new_tokens=48)["answer"]
    assert engine.generate_answer(QUESTION, max_new_tokens=48, repetition_penalty=1.5)["answer"] != greedy
