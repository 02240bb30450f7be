import csv
import dataclasses
import json
import re
import shutil

import pytest
from tokenizers import AddedToken

from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import (
    DATED,
    NO_THOUGHTS,
    NOTES,
    ONE_DAY,
    SYSTEM_IN_QUESTION,
    FormatParams,
    Prompter,
    fit_template,
    load_prompter,
    load_tokenizer,
)
from civilqa.dataset.records import Record, record_id
from civilqa.program.errors import ModelError, ParameterError, TemplateError
from civilqa.program.parameters import read_choice, read_params, read_sections
from conftest import ROOT
from format import format_records

QUESTION = "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"
ANSWER = "임차권등기명령을 신청하십시오(주택임대차보호법 제3조의3 제1항)."

TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"

# The hub's tokenizers cannot be had here. Each profile's template is tried on the embedded tokenizer, which has Llama
# 3's special tokens under their own names.
TEMPLATES = ["korean_plain", "llama3_instruct", "instruction"]


def format_record(item, params, prompter):
    (line,) = format_records([item], params, prompter)
    return line


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def tiny():
    return Profile(name=str(ROOT / "models/tiny"), weights="random")


def prompter_of(tiny, template):
    return load_prompter(tiny.model_copy(update={"template": f"models/templates/{template}.jinja"}), "conversational")


@pytest.fixture(params=TEMPLATES)
def prompter(request, tiny):
    return prompter_of(tiny, request.param)


@pytest.fixture
def params():
    return FormatParams(
        style="conversational",
        statutes_in_prompt=0,
        seed=1,
        system_prompts={"전세사기": "전세 상담가입니다.", "default": "민사 상담가입니다."},
    )


def record(question=QUESTION, answer=ANSWER, category="전세사기"):
    return Record(id=record_id(question), question=question, answer=answer, category=category, difficulty="초급")


def test_there_is_exactly_one_bos_and_it_comes_first(prompter, params):
    row = format_record(record(), params, prompter)
    bos = prompter.tokenizer.bos_token_id
    assert row["prompt_ids"][0] == bos
    assert (row["prompt_ids"] + row["completion_ids"]).count(bos) == 1


def test_the_loss_is_on_the_answer_and_its_end_token_alone(prompter, params):
    row = format_record(record(), params, prompter)
    assert row["completion_ids"][-1] == prompter.end_token_id
    assert prompter.tokenizer.decode(row["completion_ids"][:-1]) == ANSWER
    assert QUESTION in prompter.tokenizer.decode(row["prompt_ids"])
    assert ANSWER not in prompter.tokenizer.decode(row["prompt_ids"])


def test_the_prompt_of_training_is_the_prompt_of_generation(prompter, params):
    row = format_record(record(), params, prompter)
    prompt, completion = prompter.render(prompter.messages(QUESTION, "전세 상담가입니다."))
    assert completion == ""
    assert prompter.encode([prompt])[0] == row["prompt_ids"]


def test_tokens_are_those_of_the_whole_text_at_once(prompter, params):
    """Other servers encode the conversation in one piece; they must get the tokens that the model was trained on."""
    row = format_record(record(), params, prompter)
    prompt, completion = prompter.render(prompter.messages(QUESTION, "전세 상담가입니다."), ANSWER)
    assert prompter.encode([prompt + completion])[0] == row["prompt_ids"] + row["completion_ids"]


def test_tokens_are_those_that_transformers_gives(prompter, params):
    texts = [*prompter.render(prompter.messages(QUESTION, params.system_prompt("전세사기")), ANSWER), "", " 가\n\n나 "]
    expected = prompter.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    assert prompter.encode(texts) == expected


def test_truncation_and_padding_that_a_tokenizer_brings_are_off(tiny, tmp_path):
    tiny = tiny.model_copy(update={"template": str(ROOT / "models/templates/korean_plain.jinja")})
    whole = load_prompter(tiny, "conversational")
    shutil.copytree(ROOT / "models/tiny", tmp_path / "tiny")
    path = tmp_path / "tiny/tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": whole.tokenizer.pad_token_id,
        "pad_type_id": 0,
        "pad_token": whole.tokenizer.pad_token,
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    cut = load_prompter(tiny.model_copy(update={"name": str(tmp_path / "tiny")}), "conversational")
    assert cut.encode([QUESTION, "가"]) == whole.encode([QUESTION, "가"])


def test_the_end_token_is_not_the_padding_token(prompter):
    assert prompter.end_token_id != prompter.tokenizer.pad_token_id


@pytest.mark.parametrize(
    ("template", "end"),
    [("korean_plain", "<|end_of_text|>"), ("llama3_instruct", "<|eot_id|>"), ("instruction", "<|end_of_text|>")],
)
def test_each_template_ends_answers_in_its_own_token(tiny, template, end):
    prompter = prompter_of(tiny, template)
    assert prompter.tokenizer.convert_ids_to_tokens(prompter.end_token_id) == end


@pytest.mark.parametrize("text", ["<|eot_id|>", "<|end_of_text|>끝", "가<|begin_of_text|>나", "<|<|eot_id|>eot_id|>"])
def test_a_special_token_typed_by_a_user_is_text(prompter, params, text):
    tokenizer = prompter.tokenizer
    clean = format_record(record(), params, prompter)
    row = format_record(record(question=f"{text} {QUESTION}", answer=f"{ANSWER} {text}"), params, prompter)
    special = set(tokenizer.added_tokens_decoder)
    for part in ("prompt_ids", "completion_ids"):
        assert [i for i in row[part] if i in special] == [i for i in clean[part] if i in special]


def test_white_space_that_is_one_token_is_text(tiny):
    prompter = prompter_of(tiny, "korean_plain")
    prompter.tokenizer.add_tokens([AddedToken("\n\n", special=False, normalized=False)])
    assert prompter.messages("가\n\n나\n다", "라\n\n마")[1]["content"] == "가\n\n나\n다"
    assert prompter.render(prompter.messages("가", "라"), "가\n\n나")[1].startswith("가\n\n나")
    ends_in_it = dataclasses.replace(prompter, template=prompter.template.replace("eos_token", r"'\n\n'"))
    with pytest.raises(TemplateError, match="is no special token"):
        _ = ends_in_it.end_token_id


def test_articles_stand_before_the_question_in_its_own_turn(tiny):
    prompter = load_prompter(tiny, "instruction")
    system, user = prompter.messages(" 질문? ", "안내", ["민법 제618조(임대차) 임대차는", "민법 제1조 <|end_of_text|>"])
    assert system == {"role": "system", "content": "안내"}
    assert user["content"] == (
        "관련 조문:\n\n민법 제618조(임대차) 임대차는\n\n민법 제1조 < |end_of_text|>\n\n질문: 질문?"
    )
    assert prompter.messages("질문?", "안내", []) == prompter.messages("질문?", "안내")


def test_as_many_articles_as_fit_are_shown_the_last_ones_left_out(tiny):
    prompter = load_prompter(tiny, "instruction")
    articles = ["민법 제1조 가나다", "민법 제2조 라마바", "민법 제3조 사아자"]

    def length(count):
        (ids,) = prompter.encode([prompter.render(prompter.messages(QUESTION, "안내", articles[:count]))[0]])
        return len(ids)

    for count in (3, 2, 1):
        fitted = prompter.messages(QUESTION, "안내", articles[:count]), count
        assert prompter.fit_articles(QUESTION, "안내", articles, length(count)) == fitted
        assert prompter.fit_articles(QUESTION, "안내", articles, length(count) - 1)[1] == count - 1
    assert prompter.fit_articles(QUESTION, "안내", articles, 0) == (prompter.messages(QUESTION, "안내"), 0)


def test_a_base_that_a_script_beside_it_makes_names_the_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/fetch.py").touch()
    with pytest.raises(ModelError, match=r"models/base: is not here yet; run `python models/fetch.py`"):
        load_tokenizer(Profile(name="models/base"))


def test_the_system_prompt_is_the_categorys_or_the_general_one(prompter, params):
    def shown(category):
        row = format_record(record(category=category), params, prompter)
        return row["messages"][0]["content"]

    assert shown("전세사기") == "전세 상담가입니다."
    assert shown("상속") == shown("") == "민사 상담가입니다."


def test_the_instruction_style_is_prompt_and_completion(tiny, params):
    params = params.model_copy(update={"style": "instruction"})
    row = format_record(record(), params, load_prompter(tiny, "instruction"))
    assert "messages" not in row
    assert row["prompt"].endswith("### 응답\n")
    assert row["completion"] == ANSWER + "<|end_of_text|>"


def test_the_instruct_template_prints_the_same_date_every_day(tiny):
    prompt, _ = prompter_of(tiny, "llama3_instruct").render([{"role": "system", "content": "가"}])
    assert "Today Date: 08 Jun 2026\n\n가<|eot_id|>" in prompt


def test_a_template_that_asks_for_today_gets_the_reference_date(tiny):
    template = "{{ bos_token }}{{ date_string }}{% for m in messages %}{{ m['content'] }}{{ eos_token }}{% endfor %}"
    prompt, _ = Prompter(load_tokenizer(tiny), template).render([{"role": "user", "content": "가"}])
    assert "08 Jun 2026" in prompt


def test_a_template_that_reads_the_clock_prints_one_day_wherever_it_is_rendered(tiny):
    tokenizer = load_tokenizer(tiny)
    own = "{%- set today = strftime_now('%A %d %B %Y') %}{{ today }}" + TURNS
    prompter = Prompter(tokenizer, fit_template(tokenizer, own))
    turns = prompter.messages("질문", "안내")
    assert prompter.render(turns)[0].startswith("Monday 08 June 2026[system]안내")
    assert tokenizer.apply_chat_template(turns, chat_template=prompter.template, tokenize=False).startswith("Monday 08")
    assert prompter.notes == [NOTES[ONE_DAY]]
    assert fit_template(tokenizer, prompter.template) == prompter.template


@pytest.mark.parametrize(
    "clock", ["", "{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d') %}{%- endif %}"]
)
def test_a_template_with_a_day_of_its_own_shows_the_reference_date_wherever_it_is_rendered(tiny, clock):
    """As Llama 3's: other programs give no date, and would show the template's own, or today's."""
    tokenizer = load_tokenizer(tiny)
    own = f"{{%- if not date_string is defined %}}{clock}{{%- endif %}}"
    own += (
        '{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}{{ date_string }}'
        + TURNS
    )
    prompter = Prompter(tokenizer, fit_template(tokenizer, own))
    turns = prompter.messages("질문", "안내")
    elsewhere = tokenizer.apply_chat_template(turns, chat_template=prompter.template, tokenize=False)
    assert elsewhere.startswith("08 Jun 2026[system]안내")
    assert prompter.render(turns)[0].startswith("08 Jun 2026[system]안내")
    assert NOTES[DATED] in prompter.notes
    assert fit_template(tokenizer, prompter.template) == prompter.template


def test_of_several_templates_the_default_one_is_taken(tiny, tmp_path):
    shutil.copytree(ROOT / "models/tiny", tmp_path / "base")
    path = tmp_path / "base/tokenizer_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    named = [{"name": "default", "template": TURNS}, {"name": "tool_use", "template": "{{ tools }}"}]
    for templates, found in ((named, True), (named[1:], False)):
        path.write_text(json.dumps(fields | {"chat_template": templates}), encoding="utf-8")
        profile = tiny.model_copy(update={"name": str(tmp_path / "base"), "template": None})
        if found:
            assert load_prompter(profile, "conversational").template == TURNS
        else:
            with pytest.raises(TemplateError, match="has no chat template of its own"):
                load_prompter(profile, "conversational")


@pytest.mark.parametrize("behind", ["\n", "\n<|eot_id|>"])
def test_an_answer_ends_in_its_end_token_whatever_the_template_puts_behind_it(tiny, behind):
    """What is behind is the next turn's: it is neither trained nor counted in what an answer costs."""
    template = f"{{% for m in messages %}}[{{{{ m.role }}}}]{{{{ m.content + eos_token }}}}{behind}{{% endfor %}}"
    prompter = Prompter(load_tokenizer(tiny), template + "{% if add_generation_prompt %}[assistant]{% endif %}")
    prompt, completion = prompter.render([{"role": "user", "content": "물음"}], "답")
    assert (prompt, completion) == (f"[user]물음<|end_of_text|>{behind}[assistant]", "답<|end_of_text|>")


def test_a_conversation_of_several_turns_ends_each_answer(prompter):
    turns = [
        {"role": "user", "content": "하나"},
        {"role": "assistant", "content": "둘"},
        {"role": "user", "content": "셋"},
    ]
    prompt, completion = prompter.render(turns, "넷")
    ids = prompter.encode([prompt + completion])[0]
    answers = [m.start() for m in re.finditer("둘|넷", prompt + completion)]
    assert len(answers) == 2
    end = prompter.tokenizer.convert_ids_to_tokens(prompter.end_token_id)
    assert f"둘{end}" in prompt
    assert ids[-1] == prompter.end_token_id


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['nothing'] + 'a' }}", "cannot be rendered"),
        ("{% for m in messages %}", "cannot be rendered"),
        ("{% if add_generation_prompt %}묻{% else %}{{ messages[-1]['content'] }}{% endif %}", "in another way"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "no special token"),
        ("{% for m in messages %}{{ m['content'] }}<|finetune_right_pad_id|>{% endfor %}", "padding token"),
        (
            "{% for m in messages %}{{ '음' if m.role == 'assistant' }}{{ m.content + eos_token }}{% endfor %}",
            "puts '음'",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_with_is_refused(tiny, template, message):
    prompter = Prompter(load_tokenizer(tiny), template)
    with pytest.raises(TemplateError, match=message):
        _ = prompter.render(prompter.messages(QUESTION, "가"), ANSWER), prompter.end_token_id


WITHOUT_SYSTEM = {
    "refuses it": "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + TURNS,
    "leaves it out": TURNS.replace("messages %}", "messages if m.role != 'system' %}"),
    # As Mistral's of 2024: it stands in the last turn where that is the user's, and is gone once that is answered.
    "loses it": "{% set system = messages[0].content if messages[0].role == 'system' %}"
    + TURNS.replace("messages %}", "messages if m.role != 'system' %}").replace(
        "{{ m.content", "{{ system + ' ' if system and loop.last and m.role == 'user' }}{{ m.content"
    ),
}


@pytest.mark.parametrize("template", WITHOUT_SYSTEM.values(), ids=WITHOUT_SYSTEM)
def test_a_template_without_a_system_role_shows_the_system_prompt_before_the_question(tiny, template):
    tokenizer = load_tokenizer(tiny)
    prompter = Prompter(tokenizer, fit_template(tokenizer, template))
    prompt, completion = prompter.render(prompter.messages("질문", "안내"), "답")
    assert (prompt, completion) == ("[user]안내\n\n질문<|end_of_text|>", "[assistant]답<|end_of_text|>")
    turns = [("user", "하나"), ("assistant", "둘"), ("user", "셋")]
    turns = [{"role": role, "content": text} for role, text in turns]
    asked = [{"role": "system", "content": "안내"}, *turns]
    assert prompter.render(asked)[0].startswith("[user]안내\n\n하나<|end_of_text|>[assistant]둘")
    assert prompter.render(turns)[0].startswith("[user]하나<"), "without a system prompt all stays as it is"
    assert prompter.notes == [NOTES[SYSTEM_IN_QUESTION]]
    assert fit_template(tokenizer, prompter.template) == prompter.template


def test_thoughts_that_an_answer_has_and_a_prompt_has_not_are_asked_away_in_the_template_itself(tiny):
    tokenizer = load_tokenizer(tiny)
    template = (
        "{% for m in messages %}[{{ m.role }}]{{ '<think></think>' if m.role == 'assistant' }}{{ m.content }}"
        "{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{{ '<think></think>' if enable_thinking is false }}{% endif %}"
    )
    prompter = Prompter(tokenizer, fit_template(tokenizer, template))
    prompt, completion = prompter.render(prompter.messages("질문", "안내"), "답")
    assert prompt.endswith("[assistant]<think></think>")
    assert completion == "답<|end_of_text|>"
    assert prompter.notes == [NOTES[NO_THOUGHTS]]
    assert fit_template(tokenizer, prompter.template) == prompter.template


@pytest.mark.parametrize("template", [*TEMPLATES, "cannot be rendered at all"])
def test_any_other_template_stays_as_it_is(tiny, template):
    path = ROOT / f"models/templates/{template}.jinja"
    text = path.read_text(encoding="utf-8") if path.is_file() else "{{ raise_exception('no') }}"
    assert fit_template(load_tokenizer(tiny), text) == text


def test_a_missing_template_file_lists_those_there_are(tiny):
    with pytest.raises(TemplateError, match=r"none.jinja: no such template file; there are: .*korean_plain.jinja"):
        load_prompter(tiny.model_copy(update={"template": "none.jinja"}), "conversational")


def test_a_tokenizer_without_a_template_of_its_own_needs_one(tiny):
    with pytest.raises(TemplateError, match="has no chat template of its own"):
        load_prompter(tiny, "conversational")


def test_a_tokenizer_that_cannot_be_had_names_what_runs_offline():
    with pytest.raises(ModelError, match="tiny and llama-1b-random run"):
        load_tokenizer(Profile(name="nobody/no-such-model"))


@pytest.mark.parametrize("pad_token", ["<|none|>", "<|end_of_text|>"])
def test_a_padding_token_that_is_unknown_or_ends_answers_is_refused(tiny, pad_token):
    with pytest.raises(ModelError, match="set the profile's pad_token"):
        load_tokenizer(tiny.model_copy(update={"pad_token": pad_token}))


@pytest.mark.parametrize("name", read_params(ROOT / "params.yaml")["profiles"])
def test_every_profiles_template_exists(name):
    profile = read_choice("profiles", name, Profile, "model.profile")
    assert (ROOT / profile.template).is_file()


def test_system_prompts_need_a_default(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("format: {style: conversational, system_prompts: {전세사기: 가}}\n", encoding="utf-8")
    with pytest.raises(ParameterError, match="no key 'default'"):
        read_sections(path, format=FormatParams)


def test_format_records_what_it_rendered(project, run_stage):
    for stage in ("prepare", "split", "format"):
        assert run_stage(stage).returncode == 0
    metrics = json.loads((project / "metrics/format.json").read_text(encoding="utf-8"))
    rows = (project / "data/formatted/train.jsonl").read_text(encoding="utf-8").splitlines()
    assert metrics["tokens"]["train"]["records"] == len(rows)
    assert (project / "data/formatted/chat_template.jinja").read_text(encoding="utf-8") == (
        ROOT / "models/templates/korean_plain.jinja"
    ).read_text(encoding="utf-8")
    with (project / "data/formatted/lengths.csv").open(encoding="utf-8", newline="") as file:
        lengths = list(csv.DictReader(file))
    assert len(lengths) == 60
    longest = max(int(row["prompt_tokens"]) + int(row["completion_tokens"]) for row in lengths)
    assert longest == max(split["longest_tokens"] for split in metrics["tokens"].values())
    first = json.loads(rows[0])
    assert lengths[0] == {
        "split": "train",
        "id": first["id"],
        "prompt_tokens": str(len(first["prompt_ids"])),
        "completion_tokens": str(len(first["completion_ids"])),
    }
    sample = (project / "data/formatted/sample.txt").read_text(encoding="utf-8")
    assert first["messages"][1]["content"] in sample
    tokens = [line.split()[:3] for line in sample.partition("--- tokens")[2].splitlines()[1:]]
    assert [int(token) for _, token, _ in tokens] == first["prompt_ids"] + first["completion_ids"]
    assert [loss for *_, loss in tokens].count("loss") == len(first["completion_ids"])
    assert tokens[0][2] == "-"
    assert tokens[-1][2] == "loss"
    with (project / "metrics/plots/lengths.csv").open(encoding="utf-8", newline="") as file:
        assert sum(int(row["records"]) for row in csv.DictReader(file)) == 60
