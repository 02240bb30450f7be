"""What the scripts of tests/benchmarks conclude from their measurements; the measuring itself takes minutes."""

import json
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests/benchmarks"))

import cost_by_size
import startup
import training_peers
from projects import Finished


def run_of(loop, whole, loss, mib=100):
    return {"loop_seconds": loop, "whole_seconds": whole, "final_loss": loss, "peak_mib": mib}


def test_a_ratio_is_our_time_divided_by_the_peer_s():
    ratio = training_peers.compare(run_of(6, 15, 1.0, 70), run_of(10, 20, 1.04, 100))
    assert ratio == {"loop": 0.6, "whole": 0.75, "memory": 0.7, "same_loss": True}


@pytest.mark.parametrize("loss", [0.9, 1.1])
def test_a_peer_with_another_loss_does_not_count(loss, capsys):
    ours, peer = run_of(6, 15, 1.0), run_of(10, 20, loss)
    ratio = training_peers.compare(ours, peer)
    assert not ratio["same_loss"]
    training_peers.print_table({"ours": ours, "peer": peer}, {"peer": ratio})
    assert capsys.readouterr().out.count("does not count: another loss") == 1


def test_a_peer_that_trained_fewer_steps_stops_the_comparison():
    with pytest.raises(SystemExit, match="trained 3 steps, want 4"):
        training_peers.summarize(Finished(2.0, 100.0, ""), 1.0, [3.0, 2.0, 1.0], 4)


def test_the_final_loss_is_the_mean_of_the_last_tenth():
    run = training_peers.summarize(Finished(2.0, 100.0, "", 7.0), 1.0, [5.0] * 18 + [1.0, 2.0], 20)
    assert run["final_loss"] == 1.5
    assert run["peak_mib"] == 7.0, "the GPU's memory, where there is one"


def test_the_loop_s_seconds_are_read_from_what_the_trainer_prints():
    assert training_peers.read_runtime("x\n{'train_runtime': '13.42', 'train_loss': '1.2'}\n") == 13.42
    with pytest.raises(SystemExit, match="no train_runtime"):
        training_peers.read_runtime("Traceback")


def test_the_peers_get_the_tokens_and_labels_of_our_trainer(tmp_path):
    (tmp_path / "data/formatted").mkdir(parents=True)
    row = {"prompt_ids": [0, 7], "completion_ids": [8, 1]}
    (tmp_path / "data/formatted/train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert training_peers.write_tokens(tmp_path) == 1
    written = json.loads((tmp_path / "tokens/train.jsonl").read_text(encoding="utf-8"))
    assert written == {"input_ids": [0, 7, 8, 1], "attention_mask": [1, 1, 1, 1], "labels": [-100, -100, 8, 1]}


def test_cost_is_given_for_a_million_tokens():
    assert cost_by_size.cost("rows", 60, 20_000, 5.0, 900.0)["seconds_per_million_tokens"] == 250.0


def test_imports_are_added_up_by_package(monkeypatch):
    monkeypatch.setattr(startup, "SHOWN", 1000)  # all of them: which ones are slowest differs by the minute
    found = startup.import_times("prepare")
    assert 0 < sum(found["packages"].values()) <= found["seconds"] + 0.1
    assert "pydantic" in found["packages"]
    assert "torch" not in found["packages"]
