import pytest

from civilqa.base_model.hub import context_length
from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import FormatParams, load_prompter
from civilqa.dataset.groups import near_duplicates_in
from civilqa.dataset.records import Record
from civilqa.generation import baselines
from civilqa.generation.baselines import (
    article_rows,
    choose_examples,
    few_shot_prompt,
    few_shot_rows,
    fewest_examples,
    further_prompts,
    nearest_records,
    retrieve_examples,
)
from civilqa.program.errors import ModelError
from conftest import ROOT
from format import format_records

PARAMS = FormatParams(style="conversational", statutes_in_prompt=0, seed=1, system_prompts={"default": "상담하십시오."})


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


def two_examples(asked):
    return choose_examples(asked, TRAIN, 2, seed=1)


def test_rows_keep_all_but_the_prompt(prompter):
    (row,) = few_shot_rows(
        [{"id": "q-9", "prompt_ids": [1], "completion_ids": [5, 6]}], [record(9)], two_examples, PARAMS, prompter,
        max_new_tokens=4, context=1000,
    )  # fmt: skip
    assert (row["id"], row["completion_ids"], row["shown"]["examples"]) == ("q-9", [5, 6], 2)
    assert len(row["prompt_ids"]) > 1


def test_few_shot_prompts_leave_room_for_an_answer_and_for_the_reference_answer(prompter):
    def shown(max_new_tokens, reference, context):
        rows = [{"id": "q-9", "prompt_ids": [1], "completion_ids": [5] * reference}]
        room = {"max_new_tokens": max_new_tokens, "context": context}
        (row,) = few_shot_rows(rows, [record(9)], two_examples, PARAMS, prompter, **room)
        return row["shown"]["examples"], len(row["prompt_ids"])

    _, longest = shown(10, 10, 1000)
    assert shown(10, 10, longest + 10) == (2, longest)
    assert shown(11, 10, longest + 10)[0] == 1
    assert shown(10, 11, longest + 10)[0] == 1


NEAR = [
    record(1, "유치권은 언제 사라지나요?"),
    record(2, "전세 보증금을 못 받았습니다"),
    record(3, "가등기가 무엇인가요?"),
]


def test_the_nearest_question_is_found_by_its_wording():
    ((found, similarity),) = nearest_records("전세보증금을 못 받았습니다!", NEAR)
    assert (found.id, similarity) == ("q-2", 1)
    assert nearest_records("abc", NEAR) == [(NEAR[0], 0)], "of equals the first by id"
    ordered = nearest_records("가등기가 무엇이고 유치권은 언제 사라지나요?", NEAR[::-1], 3)
    assert [each.id for each, _ in ordered] == ["q-1", "q-3", "q-2"]
    assert [each.id for each, _ in nearest_records("전세보증금을 못 받았습니다!", NEAR, 9, {"q-2"})] == ["q-1", "q-3"]


def test_retrieved_examples_are_of_the_nearest_questions_and_never_of_the_question_s_own_group():
    long = "임차권등기명령을 신청하여 등기가 된 것을 확인한 다음 이사하고, 그래도 받지 못하면 소송을 내십시오."
    train = [
        record(1, "전세 보증금을 못 받았습니다, 어떻게 하나요?"),  # a near-duplicate of the question
        record(2, "이사를 가야 하는 사람은 무엇부터 해야 하나요?", long),  # its answer is the one asked for
        record(3, "전세 보증금을 못 받았는데 이사해도 되나요?"),
        record(4, "유치권은 언제 사라지나요?"),
    ]
    asked = record(9, "전세보증금을 못 받았습니다. 어떻게 하나요?", long + " 곧바로요.")
    alike = near_duplicates_in(train, [asked, record(8, "지상권은 몇 년인가요?", "30년입니다.")])
    assert alike == {"q-9": {"q-1", "q-2"}, "q-8": set()}
    assert [each.id for each in retrieve_examples(asked, train, 9, alike)] == ["q-3", "q-4"]
    assert [each.id for each in retrieve_examples(asked, train, 1, alike)] == ["q-3"]
    assert [each.id for each in retrieve_examples(asked, train, 1, {"q-9": set()})] == ["q-1"]


ARTICLES = {f"민법 제{n}조": f"민법 제{n}조(제목) {'말 ' * 20}" for n in (618, 619, 620)}


def article_row(prompter, max_new_tokens=4, reference=2, context=4000, found=ARTICLES):
    rows = [{"id": "q-9", "prompt_ids": [1], "completion_ids": [5] * reference}]
    room = {"max_new_tokens": max_new_tokens, "context": context}
    (row,) = article_rows(rows, [record(9, "새 질문")], lambda question: found, PARAMS, prompter, **room)
    return row


def test_articles_stand_before_a_question_as_they_do_in_training(prompter):
    (trained,) = format_records([record(9, "새 질문")], PARAMS, prompter, [[*ARTICLES.values()]], room=2000)
    asked = article_row(prompter)
    assert asked["prompt_ids"] == trained["prompt_ids"]
    assert asked["shown"] == {"articles": [*ARTICLES]}
    assert (asked["completion_ids"], trained["articles"]) == ([5, 5], 3)
    (plain,) = format_records([record(9, "새 질문")], PARAMS, prompter)
    assert article_row(prompter, found={})["prompt_ids"] == plain["prompt_ids"]
    assert "articles" not in plain


def test_articles_that_do_not_fit_are_left_out_from_the_last_and_counted(prompter, capsys):
    whole = len(article_row(prompter)["prompt_ids"])
    assert capsys.readouterr().out == ""
    cut = article_row(prompter, context=2 * whole - 1)  # they may take half of it
    assert cut["shown"] == {"articles": ["민법 제618조", "민법 제619조"]}
    assert len(cut["prompt_ids"]) < whole
    assert "1 articles found are in no prompt: there is room for" in capsys.readouterr().out
    assert article_row(prompter, max_new_tokens=30, context=whole + 30, found={})["shown"] == {"articles": []}
    longest = 4000 - whole
    assert len(article_row(prompter, max_new_tokens=longest)["shown"]["articles"]) == 3
    assert len(article_row(prompter, max_new_tokens=longest + 1)["shown"]["articles"]) == 2
    assert len(article_row(prompter, reference=longest + 1)["shown"]["articles"]) == 2


def test_both_models_are_shown_the_articles_where_they_are_asked_for_and_nothing_is_read_where_not(
    prompter, monkeypatch
):
    class Index:
        def find(self, question, count):
            return dict([*ARTICLES.items()][:count])

    rows = [{"id": "q-9", "prompt_ids": [1], "completion_ids": [5]}]
    room = {"params": PARAMS, "prompter": prompter, "max_new_tokens": 4, "context": 4000}
    monkeypatch.setattr(baselines, "load_index", Index)
    (shown,) = further_prompts([(rows, [record(9)])], TRAIN, {"q-9": set()}, 1, 1, 0, 2, **room)
    assert [*shown] == ["few_shot", "retrieval", "adapter_retrieval"]
    assert shown["retrieval"] == shown["adapter_retrieval"]
    assert shown["retrieval"][0]["shown"]["articles"] == ["민법 제618조", "민법 제619조"]
    told = {system: [row["shown"] for row in part] for system, part in shown.items()}
    assert fewest_examples(told) == {"few_shot_examples": 1}
    monkeypatch.setattr(baselines, "load_index", lambda: pytest.fail("read"))
    (shown,) = further_prompts([(rows, [record(9)])], TRAIN, {"q-9": set()}, 1, 1, 2, 0, **room)
    assert [*shown] == ["few_shot", "retrieved"]


def test_the_context_is_what_the_base_says(tmp_path):
    assert context_length(Profile(name=str(ROOT / "models/tiny"), weights="random")) == 4096
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    with pytest.raises(ModelError, match="max_position_embeddings"):
        context_length(Profile(name=str(tmp_path)))
