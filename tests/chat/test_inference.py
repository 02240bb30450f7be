import io
import subprocess
import sys

from conftest import ROOT


def test_nothing_heavy_is_imported_before_a_model_is_loaded():
    code = (
        "from civilqa.inference import InferenceEngine; import chat; InferenceEngine(); chat.make_parser()\n"
        "print([name for name in ('torch', 'transformers', 'pandas', 'gradio', 'rich') if name in sys.modules])"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, 'stages')\n{code}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_speed_is_measured_and_shown(engine, capsys):
    measured = engine.benchmark_generation_speed(repeats=1, max_new_tokens=4)
    assert measured["answers"] == 3
    assert measured["first_token_seconds"] > 0
    assert "첫 토큰까지" in capsys.readouterr().out


def test_a_conversation_is_held_in_the_terminal(engine, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("유치권이란?\n/끝\n".encode()), encoding="utf-8"))
    engine.interactive_chat()
    assert "24토큰" in capsys.readouterr().out
