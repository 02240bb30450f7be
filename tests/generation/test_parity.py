import torch

from civilqa.generation.answers import Behaviour, compare


def test_two_models_are_compared_by_logits_and_answers():
    one = Behaviour([torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])], [[1, 2], [3]])
    other = Behaviour([torch.tensor([[1.0, 2.5]]), torch.tensor([[0.0, -0.1]])], [[1, 2], [4]])
    assert compare(one, other) == {"prompts": 2, "max_logit_difference": 0.5, "equal_answers": 1}
