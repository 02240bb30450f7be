import pytest

from civilqa.chat.terminal import Conversation
from civilqa.law.verdicts import look_up_citations


class Stream:
    """Gives its pieces; a None among them is Ctrl-C."""

    def __init__(self, pieces):
        self.pieces, self.given, self.closed, self.result = iter(pieces), [], False, None

    def __iter__(self):
        for piece in self.pieces:
            if piece is None:
                raise KeyboardInterrupt
            self.given.append(piece)
            yield piece

    def close(self):
        self.closed = True
        answer = {"answer": "".join(self.given), "citations": [], "tokens": len(self.given), "seconds": 0.1}
        self.result = answer | {
            "question": "질문",
            "category": "",
            "category_chosen": False,
            "model": "모델",
            "stopped": not list(self.pieces),
        }


class Engine:
    def __init__(self, name, *pieces):
        self.name, self.pieces, self.streams, self.histories = name, pieces, [], []

    def passes_turns_on(self, multi_turn=None):
        return True

    def stream_answer(self, question, category, *, history):
        self.histories.append([answer for _, answer in history])
        self.streams.append(Stream(self.pieces))
        return self.streams[-1]


def test_ctrl_c_stops_the_answer_and_whoever_types_may_ask_another(capsys):
    engine = Engine("모델", "전세", "보증금", None, "은")
    conversation = Conversation(engine, None, "")
    conversation.typed = True
    conversation.handle("질문입니다")
    assert engine.streams[0].closed
    out = capsys.readouterr().out
    assert "전세보증금\n" in out
    assert "답변을 멈췄습니다" in out
    engine.pieces = ("새", " 답")
    conversation.handle("다시 묻습니다")
    conversation.handle("이어서 묻습니다")
    assert engine.histories == [[], [], ["새 답"]]  # what was stopped is no turn to go on from


def test_ctrl_c_ends_the_program_where_nobody_types():
    conversation = Conversation(Engine("모델", "전세", None), None, "")
    with pytest.raises(KeyboardInterrupt):
        conversation.handle("질문입니다")


def test_both_models_are_asked_and_their_answers_stand_side_by_side(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    tuned, base = Engine("미세조정 모델", "보증금을 ", "돌려받습니다"), Engine("기반 모델", "…", "모릅니다")
    Conversation(tuned, base, "").handle("질문입니다")
    lines = capsys.readouterr().out.splitlines()
    assert any("미세조정 모델" in line and "기반 모델" in line for line in lines)
    assert any("보증금을 돌려받습니다" in line and "…모릅니다" in line for line in lines)
    assert tuned.streams[0].closed
    assert base.streams[0].closed


def test_ctrl_c_stops_both_models(capsys):
    tuned, base = Engine("미세조정 모델", "가", None), Engine("기반 모델", "나")
    conversation = Conversation(tuned, base, "")
    conversation.typed = True
    conversation.handle("질문입니다")
    assert tuned.streams[0].closed
    assert base.streams[0].closed
    assert base.streams[0].given == []
    assert capsys.readouterr().out.count("답변을 멈췄습니다") == 2


def test_the_text_of_a_cited_article_is_below_it_where_it_is_at_hand(capsys, monkeypatch):
    texts = {"제750조": "고의 또는 과실"}
    monkeypatch.setattr("civilqa.chat.terminal.cited_text", lambda citation: texts.get(citation["article"]))
    citations = look_up_citations("민법 제750조와 민법 제751조에 따라")
    answer = {"citations": citations, "tokens": 1, "seconds": 0.1, "model": "모델", "stopped": True}
    Conversation(Engine("모델"), None, "").show_notes(answer)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    place = next(number for number, line in enumerate(lines) if "민법 제750조" in line)
    assert lines[place + 1] == "    고의 또는 과실"
    assert "민법 제751조" in lines[place + 2]
