from pathlib import Path

import pytest
import torch

from civilqa.generation import answers
from civilqa.generation.answers import Behaviour, check_parity, compare
from civilqa.program.errors import ModelError


def test_two_models_are_compared_by_logits_and_answers():
    one = Behaviour([torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])], [[1, 2], [3]])
    other = Behaviour([torch.tensor([[1.0, 2.5]]), torch.tensor([[0.0, -0.1]])], [[1, 2], [4]])
    assert compare(one, other) == {"prompts": 2, "max_logit_difference": 0.5, "equal_answers": 1}


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_no_number_is_no_parity(place, monkeypatch):
    """In fp16 some models run over: their logits are NaN, which is greater than nothing."""
    logits = [torch.zeros(3), torch.zeros(3)]
    logits[place] = torch.tensor([0.0, float("nan"), 0.0])
    found = Behaviour(logits, [[1], [2]])
    monkeypatch.setattr(answers, "behave", lambda *_: found)
    monkeypatch.setattr(answers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: torch.nn.Identity())
    with pytest.raises(ModelError, match="export with --precision fp32"):
        check_parity(Path("models/merged"), None, [], "fp16", Behaviour([torch.zeros(3)] * 2, [[1], [2]]))
