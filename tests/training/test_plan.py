from civilqa.training.plan import summarize_losses, train_curve, validation_curve


def test_losses_are_summarised_from_the_history():
    history = [{"loss": 3.0}, {"loss": 2.0}, {"eval_loss": 2.5}, {"loss": 1.0}, {"eval_loss": 2.7}, {"train_loss": 2}]
    assert summarize_losses(history) == {
        "train_first": 3.0,
        "train_last": 1.0,
        "validation_best": 2.5,
        "validation_last": 2.7,
    }
    assert summarize_losses(history[:2]) == {"train_first": 3.0, "train_last": 2.0}


def test_the_curves_are_by_optimiser_step():
    history = [
        {"step": 1, "loss": 3.0, "learning_rate": 0.1, "grad_norm": 1.0},
        {"step": 1, "eval_loss": 2.5, "eval_runtime": 0.1},
        {"step": 2, "train_loss": 2.0},
    ]
    assert train_curve(history) == [{"step": 1, "train_loss": 3.0, "learning_rate": 0.1}]
    assert validation_curve(history) == [{"step": 1, "validation_loss": 2.5}]
