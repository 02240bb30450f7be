import pytest

from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import FormatParams, load_prompter
from civilqa.dataset.records import Record
from civilqa.generation.baselines import choose_examples, few_shot_prompt, few_shot_rows, nearest_record
from civilqa.model.loading import context_length
from civilqa.program.errors import ModelError
from conftest import ROOT

PARAMS = FormatParams(style="conversational", system_prompts={"default": "상담하십시오."})


def record(number, question="질문", answer="답변입니다.", category="전세사기"):
    return Record(id=f"q-{number}", question=question, answer=answer, category=category, difficulty="")


TRAIN = [record(i, f"{i}번째 질문", f"{i}번째 답변입니다.", "전세사기" if i < 3 else "부동산물권") for i in range(6)]


@pytest.fixture(scope="module")
def prompter():
    profile = Profile(
        name=str(ROOT / "models/tiny"), weights="random", template=str(ROOT / "models/templates/korean_plain.jinja")
    )
    return load_prompter(profile, "conversational")


def test_examples_are_of_the_category_first_and_the_same_every_time():
    chosen = choose_examples(record(9), TRAIN, 4, seed=1)
    assert [example.category for example in chosen] == ["전세사기"] * 3 + ["부동산물권"]
    assert choose_examples(record(9), TRAIN[::-1], 4, seed=1) == chosen
    assert any(choose_examples(record(9), TRAIN, 4, seed=seed) != chosen for seed in range(2, 6))


def test_a_question_is_never_its_own_example():
    assert TRAIN[0] not in choose_examples(TRAIN[0], TRAIN, 9, seed=1)


def test_examples_go_through_the_template_of_the_training(prompter):
    ids, shown = few_shot_prompt(record(9, "새 질문"), TRAIN[:2], PARAMS, prompter, room=1000)
    text = prompter.tokenizer.decode(ids)
    assert shown == 2
    end = prompter.tokenizer.decode([prompter.end_token_id])
    assert text.count(end) == 2
    assert text.index("0번째 답변입니다.") < text.index("1번째 질문") < text.index("새 질문")
    assert text.endswith("### 답변\n")
    # Without examples it is the prompt of the base.
    alone, _ = few_shot_prompt(record(9, "새 질문"), [], PARAMS, prompter, room=1000)
    plain, _ = prompter.render(prompter.messages("새 질문", "상담하십시오."))
    assert [alone] == prompter.encode([plain])


def test_examples_that_do_not_fit_are_left_out(prompter):
    whole, _ = few_shot_prompt(record(9), TRAIN[:3], PARAMS, prompter, room=10_000)
    ids, shown = few_shot_prompt(record(9), TRAIN[:3], PARAMS, prompter, room=len(whole) - 1)
    assert shown == 2
    assert len(ids) < len(whole)
    assert few_shot_prompt(record(9), TRAIN[:3], PARAMS, prompter, room=1)[1] == 0


def test_rows_keep_all_but_the_prompt(prompter):
    (row,) = few_shot_rows(
        [{"id": "q-9", "prompt_ids": [1], "completion_ids": [5, 6]}], [record(9)], TRAIN, PARAMS, prompter,
        count=2, seed=1, max_new_tokens=4, context=1000,
    )  # fmt: skip
    assert (row["id"], row["completion_ids"], row["examples"]) == ("q-9", [5, 6], 2)
    assert len(row["prompt_ids"]) > 1


def test_few_shot_prompts_leave_room_for_an_answer_and_for_the_reference_answer(prompter):
    def shown(max_new_tokens, reference, context):
        rows = [{"id": "q-9", "prompt_ids": [1], "completion_ids": [5] * reference}]
        room = {"max_new_tokens": max_new_tokens, "context": context}
        (row,) = few_shot_rows(rows, [record(9)], TRAIN, PARAMS, prompter, count=2, seed=1, **room)
        return row["examples"], len(row["prompt_ids"])

    _, longest = shown(10, 10, 1000)
    assert shown(10, 10, longest + 10) == (2, longest)
    assert shown(11, 10, longest + 10)[0] == 1
    assert shown(10, 11, longest + 10)[0] == 1


def test_the_nearest_question_is_found_by_its_wording():
    train = [
        record(1, "유치권은 언제 사라지나요?"),
        record(2, "전세 보증금을 못 받았습니다"),
        record(3, "가등기가 무엇인가요?"),
    ]
    found, similarity = nearest_record("전세보증금을 못 받았습니다!", train)
    assert (found.id, similarity) == ("q-2", 1)
    assert nearest_record("abc", train) == (train[0], 0)


def test_the_context_is_what_the_base_says(tmp_path):
    assert context_length(Profile(name=str(ROOT / "models/tiny"), weights="random")) == 4096
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    with pytest.raises(ModelError, match="max_position_embeddings"):
        context_length(Profile(name=str(tmp_path)))
