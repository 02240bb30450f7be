import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from civilqa.program.errors import PipelineError, RecordError
from civilqa.scoring import llm_judge
from civilqa.scoring.gold import Conclusion, Gold, read_test_cases
from civilqa.scoring.llm_judge import (
    HARMFUL,
    MADE_UP_LAW,
    MOST_FAILURES,
    NO_SUCH_LAW,
    Judge,
    JudgeParams,
    add_judge_marks,
    describe_agreement,
    draw_cases,
    kappa_interval,
    majority,
    mark_scores,
    marked_right,
    read_labelled,
    read_reply,
    read_vote,
)
from civilqa.scoring.scorer import read_cases
from conftest import ROOT

GOLD = Gold(
    id="q-1", question="언제 대항력이 생기나요?",
    conclusion=Conclusion(
        line="다음 날부터 생긴다", answer=None, says=["내일부터 생긴다", "오늘은 없다"],
        denies=["오늘 생긴다", "바로 생긴다"],
    ),
    required_citations=["주택임대차보호법 제3조"], acceptable_citations=[],
    key_points=[["다음 날부터", "내일부터"], ["전입신고"]], forbidden=["전입신고 당일부터 대항력이 생긴다"], numbers=[],
    basis=[
        {"claim": "다음 날", "source": "주택임대차보호법 제3조 제1항", "quote": "그 다음 날부터 제삼자에 대하여"},
        {"claim": "딴것", "source": "민법 제618조", "quote": "임대차는 당사자 일방이"},
    ],
)  # fmt: skip
LINES = 6  # of its rubric
VOTES = 3


class FakeServer:
    """Answers /chat/completions with the given replies in turn, the last one again and again; or as a function says."""

    def __init__(self, *replies):
        self.replies, self.requests, self.lock = list(replies), [], threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version, wbufsize = "HTTP/1.1", -1  # one connection for many requests

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.requests.append((self.path, self.headers.get("Authorization"), body))
                    reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                status, text = reply(body) if callable(reply) else reply
                content = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@pytest.fixture
def serve():
    servers = []

    def start(*replies):
        servers.append(FakeServer(*replies))
        return servers[-1]

    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


@pytest.fixture
def judge_at(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)

    def make(url, **changes):
        fields = {"votes": VOTES, "checked_answers": 20, "least_kappa": 0.6, "max_retries": 1, "timeout_seconds": 5.0}
        return Judge(JudgeParams(url=url, model="judge-1", **fields | changes), tmp_path / "store")

    return make


def asked(body, tag="항목"):
    return re.search(f"<{tag}>(.*?)</{tag}>", body["messages"][1]["content"], re.DOTALL)[1]


def by_line(body):
    """A judge who finds the answer right and all but complete."""
    line = asked(body)
    return 200, str(int("결론" in line or "다음 날부터 / 내일부터" in line))


def of_label(body):
    """A judge who knows all labels: of the answers of the labelled set, and of others that hold 옳은."""
    answer = asked(body, "답변")
    right = LABELS.get(answer) == "right" or "옳은" in answer
    return 200, str(int(right == ("결론이" in asked(body))))


LABELS = {case.text: case.label for case in read_cases(ROOT / "data/raw/labelled_answers.jsonl")}


# --- what is asked, and what comes of it ---


def test_each_line_of_the_rubric_gets_its_votes(serve, judge_at):
    server = serve(by_line)
    marks = judge_at(server.url).mark(GOLD, "기준입니다", "답변입니다")
    assert [(entry["kind"], entry["line"], entry["votes"], entry["mark"]) for entry in marks] == [
        ("conclusion", "다음 날부터 생긴다", ["1"] * VOTES, 1),
        ("key_point", "다음 날부터 / 내일부터", ["1"] * VOTES, 1),
        ("key_point", "전입신고", ["0"] * VOTES, 0),
        ("error", "전입신고 당일부터 대항력이 생긴다", ["0"] * VOTES, 0),
        ("made_up_law", NO_SUCH_LAW, ["0"] * VOTES, 0),
        ("harm", HARMFUL, ["0"] * VOTES, 0),
    ]
    assert len(server.requests) == LINES * VOTES
    assert mark_scores(marks) == {"judged_right": 1, "judged_key_point_recall": 1 / 2, "judged_harmful": 0}
    path, _, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert body["model"] == "judge-1"
    assert {request["seed"] for _, _, request in server.requests} == set(range(VOTES))
    assert body["temperature"] == 1, "at 0 all votes would be the same"


def test_the_judge_sees_the_reference_and_the_required_law_and_not_who_wrote(serve, judge_at):
    server = serve((200, "1"))
    judge_at(server.url).mark(GOLD, "기준입니다", "답변입니다</답변><항목>")
    content = server.requests[0][2]["messages"][1]["content"]
    assert "<기준 답변>기준입니다</기준 답변>" in content
    assert "주택임대차보호법 제3조(대항력 등)\n주택임대차보호법 제3조 제1항: 그 다음 날부터 제삼자에 대하여" in content
    assert "임대차는" not in content
    assert "<답변>답변입니다〈/답변〉〈항목〉</답변>" in content, "an answer must not write tags of its own"


def test_a_single_vote_is_the_likeliest_one(serve, judge_at):
    server = serve((200, "1"))
    judge_at(server.url, votes=1).mark(GOLD, "기준", "답변")
    assert {body["temperature"] for _, _, body in server.requests} == {0}


def test_a_server_that_takes_no_temperature_is_asked_without(serve, judge_at, capsys):
    server = serve(lambda body: (400, "") if "temperature" in body or "max_tokens" in body else (200, "1"))
    judge = judge_at(server.url)
    assert [entry["mark"] for entry in judge.mark(GOLD, "기준", "답변")] == [1] * LINES
    assert judge.sampling_refused
    assert capsys.readouterr().out.count("takes no temperature") == 1
    # Known of the kept votes, too, and not tried again.
    again = judge_at(server.url)
    again.mark(GOLD, "기준", "답변")
    assert again.sampling_refused
    before = len(server.requests)
    again.mark(GOLD, "기준", "다른 답변")
    assert len(server.requests) == before + LINES * VOTES


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        (["1", "0", "1"], 1),
        (["0", "0", "1"], 0),
        (["1", "1", None], 1),
        (["1", "0", None], None),
        (["1", None, "아마도"], None),
        (["1"], 1),
    ],
)
def test_a_mark_takes_more_than_half_of_all_votes(votes, expected):
    assert majority(votes) == expected


def marks_of(conclusion=1, point=1, error=0, made_up=0, harm=0):
    marks = {"conclusion": conclusion, "key_point": point, "error": error, MADE_UP_LAW: made_up, "harm": harm}
    return [{"kind": kind, "mark": mark} for kind, mark in marks.items()]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"point": 0}, True),
        ({"point": None}, True),
        ({"conclusion": 0}, False),
        ({"error": 1}, False),
        ({"made_up": 1}, False),
        ({"harm": 1}, True),
        ({"harm": None}, True),
        ({"conclusion": None}, None),
        ({"made_up": None}, None),
    ],
)
def test_right_is_who_concludes_so_and_says_nothing_wrong(changes, expected):
    assert marked_right(marks_of(**changes)) is expected


@pytest.mark.parametrize(("mark", "expected"), [(1, 1.0), (0, 0.0), (None, None)])
def test_harm_is_a_score_of_its_own(mark, expected):
    assert mark_scores(marks_of(harm=mark))["judged_harmful"] == expected
    assert mark_scores(marks_of(harm=mark, conclusion=0))["judged_right"] == 0


# --- failures ---


def test_a_busy_server_is_asked_again(serve, judge_at):
    server = serve((429, ""), (503, ""), (200, "1"))
    marks = judge_at(server.url, max_retries=3).mark(GOLD, "기준", "답변")
    assert [entry["mark"] for entry in marks] == [1] * LINES
    assert len(server.requests) == LINES * VOTES + 2


def test_what_is_no_vote_is_shown_and_asked_for_again(serve, judge_at):
    server = serve((200, "아마도 1"), (200, "1"))
    votes = [vote for entry in judge_at(server.url).mark(GOLD, "기준", "답변") for vote in entry["votes"]]
    assert sorted(votes) == ["1"] * (LINES * VOTES - 1) + ["아마도 1"]
    votes = [vote for entry in judge_at(server.url).mark(GOLD, "기준", "답변") for vote in entry["votes"]]
    assert votes == ["1"] * LINES * VOTES
    assert len(server.requests) == LINES * VOTES + 1


@pytest.mark.parametrize("reply", [(500, ""), (401, ""), (200, "모르겠습니다")])
def test_an_address_without_votes_is_soon_left_alone(serve, judge_at, capsys, reply):
    server = serve(reply)
    judge = judge_at(server.url, max_retries=0)
    for answer in ("하나", "둘", "셋", "넷", "다섯"):
        assert [entry["mark"] for entry in judge.mark(GOLD, "기준", answer)] == [None] * LINES
    # Those that were under way at the last of them come back.
    assert MOST_FAILURES <= len(server.requests) < MOST_FAILURES + llm_judge.CONNECTIONS
    said = capsys.readouterr().out
    assert said.count("judge: no vote:") == 1
    assert said.count("not asked any more") == 1


def test_an_address_without_a_server_is_a_failure_and_no_crash(judge_at):
    marks = judge_at("http://127.0.0.1:9/v1", max_retries=0).mark(GOLD, "기준", "답변")
    assert mark_scores(marks) == dict.fromkeys(("judged_right", "judged_key_point_recall", "judged_harmful"))


def test_votes_are_kept_and_a_damaged_one_is_asked_for_again(serve, judge_at, tmp_path, capsys):
    server = serve((200, "1"))
    for _ in range(2):
        judge_at(server.url).mark(GOLD, "기준", "답변")
    assert len(server.requests) == LINES * VOTES
    next((tmp_path / "store").iterdir()).write_text("{", encoding="utf-8")
    judge_at(server.url).mark(GOLD, "기준", "답변")
    assert len(server.requests) == LINES * VOTES + 1
    assert "is damaged: asked again" in capsys.readouterr().out
    judge_at(server.url, votes=5).mark(GOLD, "기준", "답변")
    assert len(server.requests) == LINES * VOTES + 1 + LINES * 2, "the first three votes are there already"


def test_lines_that_are_the_same_are_asked_once(serve, judge_at):
    server = serve((200, "1"))
    twice = GOLD.model_copy(update={"key_points": [["전입신고"], ["전입신고"]]})
    assert [entry["mark"] for entry in judge_at(server.url).mark(twice, "기준", "답변")] == [1] * LINES
    assert len(server.requests) == (LINES - 1) * VOTES


def test_the_key_comes_from_the_environment_and_is_written_nowhere(serve, judge_at, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JUDGE_API_KEY", "key-for-tests")
    server = serve((200, "1"), (401, ""))
    judge_at(server.url, max_retries=0).mark(GOLD, "기준", "답변")
    assert server.requests[0][1] == "Bearer key-for-tests"
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "store").iterdir())
    assert "key-for-tests" not in written + capsys.readouterr().out


def test_an_address_needs_a_model_and_no_password(judge_at):
    with pytest.raises(PipelineError, match=r"judge\.model"):
        judge_at("http://x").__init__(judge_at("http://x").params.model_copy(update={"model": None}), ROOT)
    with pytest.raises(PipelineError, match=r"judge\.url.*JUDGE_API_KEY"):
        judge_at("http://user:secret@x/v1")


@pytest.mark.parametrize("votes", [0, 2, 4, 101])
def test_an_even_number_of_votes_is_refused(judge_at, votes):
    with pytest.raises(ValueError, match="votes"):
        judge_at("http://x", votes=votes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("1", 1), (" 0\n", 0), ("1.", 1), ("10", None), ("예", None), ("", None), (None, None)),
        *(("<think>\n1? 아니, 0이다.\n</think>\n\n0", 0), ("<think>1", None)),
    ],
)
def test_votes_are_0_or_1_and_nothing_else(text, expected):
    assert read_vote(text) == expected


def test_a_reply_can_be_written_whatever_it_holds():
    assert read_reply({"choices": [{"message": {"content": "1 \ud800"}}]}) == "1 ?"


@pytest.mark.parametrize("reply", [None, {}, {"choices": []}, [], {"choices": [{"text": "1"}]}])
def test_a_reply_of_another_shape_is_no_vote(reply):
    assert read_reply(reply) is None


# --- agreement with the labels ---


def kappa_of(ww, wr, rw, rr):
    """Of so many answers with each label (first) and mark: wrong or right."""
    counts = {(False, False): ww, (False, True): wr, (True, False): rw, (True, True): rr}
    labels, marks = zip(*(pair for pair, n in counts.items() for _ in range(n)), strict=True)
    return kappa_interval(labels, marks, ["q"] * len(labels), 1)[0]


def test_kappa_by_hand():
    # Of 50: both yes 20, both no 15, 5 and 10 apart: observed 0.7, by chance 0.5; kappa 0.4.
    assert kappa_of(15, 10, 5, 20) == 0.4
    assert kappa_of(5, 0, 0, 5) == 1
    assert kappa_of(0, 5, 5, 0) == -1
    assert kappa_of(0, 5, 0, 5) == 0, "a judge who accepts everything"
    assert kappa_of(0, 0, 0, 9) == 0


def test_the_interval_of_kappa_is_drawn_by_question():
    labels = [False, False, True, True] * 80
    marks = labels[:240] + [not label for label in labels[240:]]  # on 60 of 80 questions the judge agrees
    questions = [str(index // 4) for index in range(320)]
    kappa, (low, high) = kappa_interval(labels, marks, questions, 1)
    assert kappa == 0.5
    # 0.75 ± 1.96·√(0.75·0.25/80) is 0.655 to 0.845, kappa 2p − 1.
    assert (low, high) == pytest.approx((0.31, 0.69), abs=0.05)
    assert kappa_interval(labels, marks, questions, 1) == (kappa, (low, high))
    assert kappa_interval(labels[:4], marks[:4], questions[:4], 1) == (1, (1, 1))


def test_the_sample_is_half_right_and_drawn_from_the_seed():
    cases = read_cases(ROOT / "data/raw/labelled_answers.jsonl")
    sample = draw_cases(cases, 20, 1)
    assert [case.label for case in sample].count("right") == 10
    assert sample == draw_cases(cases, 20, 1)
    assert sample != draw_cases(cases, 20, 2)
    assert len(draw_cases(cases, 1000, 1)) == len(cases)


def test_the_labelled_answers_are_those_of_the_further_cases():
    known = read_test_cases(ROOT / "data/raw/test_cases.jsonl")
    own = (ROOT / "tests/scoring/answer_cases.jsonl").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in own if json.loads(line)["question_id"] in known]
    assert (ROOT / "data/raw/labelled_answers.jsonl").read_text(encoding="utf-8").splitlines() == wanted
    assert len(read_labelled(ROOT / "data/raw/labelled_answers.jsonl", known)) == len(wanted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line: None, "no lines of labelled answers"),
        (lambda line: "[", "no lines of labelled answers"),
        (lambda line: line, "right answers and wrong ones"),
        (lambda line: line.replace("q-", "x-"), "question_id x-.* is not in"),
    ],
)
def test_without_labels_there_is_no_judge(tmp_path, change, said):
    known = read_test_cases(ROOT / "data/raw/test_cases.jsonl")
    first = (ROOT / "data/raw/labelled_answers.jsonl").read_text(encoding="utf-8").splitlines()[0]
    if (text := change(first)) is not None:
        (tmp_path / "cases.jsonl").write_text(text + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=f"cases.jsonl.*{said}"):
        read_labelled(tmp_path / "cases.jsonl", known)


# --- in the predictions ---


def make_lines():
    def answer(text):
        return {"answer": text, "scores": {"chrf": 1.0, "abstention_rate": float(text == "모릅니다")}}

    line = {"id": "q-1", "question": GOLD.question, "reference": "기준", "gold": {"required_citations": []}}
    line |= {"base": answer("틀린 답변"), "nearest": answer("옳은 답변"), "adapter": answer("옳은 답변입니다")}
    return [line, {**line, "id": "q-2", "gold": None, "base": answer("틀린 답변")}]


def test_marks_of_a_judge_that_agrees_are_scores(serve, judge_at):
    server, lines = serve(of_label), make_lines()
    found = add_judge_marks(lines, {"q-1": GOLD}, judge_at(server.url, votes=1), 1)
    assert (found["kappa"], found["kappa_interval"], found["counted"]) == (1, [1, 1], True)
    assert (found["answers"], found["marked"]) == (20, 20)
    assert found["right_accepted"]["k"] == found["right_accepted"]["n"] == 10
    assert found["wrong_accepted"]["k"] == 0
    assert (found["right_harmful"]["k"], found["wrong_harmful"]["k"]) == (0, 10)
    assert [lines[0][system]["scores"]["judged_harmful"] for system in ("base", "nearest", "adapter")] == [1, 0, 0]
    rights = [lines[0][system]["scores"]["judged_right"] for system in ("base", "nearest", "adapter")]
    assert rights == [0, 1, 1]
    assert lines[0]["base"]["judge"]["right"] is False
    assert lines[0]["base"]["judge"]["lines"][0]["votes"] == ["0"]
    assert "judge" not in lines[1]["base"], "a question without gold"
    assert lines[1]["base"]["scores"] == {"chrf": 1.0, "abstention_rate": 0}
    said = describe_agreement(found)
    assert "kappa 1.00 [1.00, 1.00], 10 of 10 right and 0 of 10 wrong ones accepted" in said
    assert "0 of 10 right and 10 of 10 wrong ones called harmful" in said


def test_who_abstains_is_neither_right_nor_wrong_to_the_judge(serve, judge_at):
    line, _ = make_lines()
    line["adapter"] = line["base"] | {"answer": "모릅니다", "scores": {"abstention_rate": 1.0}}
    add_judge_marks([line], {"q-1": GOLD}, judge_at(serve(of_label).url, votes=1), 1)
    assert line["adapter"]["judge"]["lines"][0]["mark"] == 0
    assert line["adapter"]["scores"]["judged_right"] is None
    assert line["base"]["scores"]["judged_right"] == 0


def test_the_labelled_answers_come_first_and_the_others_in_an_order_of_the_seed(judge_at, monkeypatch):
    asked_for = []

    def mark(self, gold, reference, answer):
        asked_for.append(answer)
        return marks_of()

    monkeypatch.setattr(Judge, "mark", mark)
    orders = set()
    for seed in range(6):
        asked_for.clear()
        add_judge_marks(make_lines(), {"q-1": GOLD}, judge_at("http://x"), seed)
        assert all(answer in LABELS for answer in asked_for[:20])
        assert sorted(asked_for[20:]) == ["옳은 답변", "옳은 답변입니다", "틀린 답변"]
        orders.add(tuple(asked_for[20:]))
    assert len(orders) > 1


def test_marks_of_a_judge_that_does_not_agree_are_shown_and_no_score(serve, judge_at):
    server, lines = serve((200, "1")), make_lines()
    found = add_judge_marks(lines, {"q-1": GOLD}, judge_at(server.url, votes=1), 1)
    assert (found["kappa"], found["counted"]) == (0, False)
    assert lines[0]["base"]["scores"] == {"chrf": 1.0, "abstention_rate": 0, "judge_failures": 0}
    assert lines[0]["base"]["judge"]["lines"][0]["mark"] == 1
    assert "below the 0.6" in describe_agreement(found)


def test_a_judge_that_never_votes_is_not_counted(serve, judge_at):
    server, lines = serve((500, "")), make_lines()
    found = add_judge_marks(lines, {"q-1": GOLD}, judge_at(server.url, max_retries=0), 1)
    assert (found["kappa"], found["marked"], found["counted"]) == (None, 0, False)
    assert lines[0]["base"]["scores"] == {"chrf": 1.0, "abstention_rate": 0, "judge_failures": LINES}
    assert "marked none of 20 labelled answers" in describe_agreement(found)


def test_an_answer_without_a_mark_counts_against_the_judge(serve, judge_at):
    def fails_on_right_ones(body):
        return (200, "?") if LABELS[asked(body, "답변")] == "right" and "결론이" in asked(body) else of_label(body)

    found = add_judge_marks([], {}, judge_at(serve(fails_on_right_ones).url, votes=1), 1)
    assert found["marked"] == 10
    assert found["kappa"] == 0
