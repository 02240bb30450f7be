"""The figures that one decides by: as metrics/summary.json holds them, and as evaluate prints them."""

from typing import Any

from civilqa.program.files import sha256_json
from civilqa.scoring.article_recall import describe_recall
from civilqa.scoring.comparison import BETTER, PRIMARY, WORSE
from civilqa.scoring.llm_judge import describe_agreement
from civilqa.scoring.predictions import SYSTEMS
from civilqa.scoring.scores import OF_JUDGE

SHOWN = (*PRIMARY, "bits_per_character", "chrf", "citation_f1", "key_point_recall", "repetition")


def summarize(metrics: dict[str, Any], trained: dict[str, Any]) -> dict[str, float | str | None]:
    """Return the figures of the adapter on the test split, beside its base, and of its training.

    Args:
        metrics: what metrics/evaluate.json holds.
        trained: what metrics/finetune.json holds; its losses (nats a token) count if they are of the same adapter.

    Returns:
        None for a figure that there is not: no reference cites an article, there was no validation split.
    """
    losses = trained["loss"] if trained.get("adapter_sha256") == metrics["adapter_sha256"] else {}
    adapter, difference = metrics["test"]["adapter"], metrics["difference"]["base"]
    leaks = metrics["test"].get("nearest", {}).get("copied_near_duplicate")
    figures = {
        "contrast": metrics["contrasts"].get("unseen", {}).get("adapter", {}).get("contrast_accuracy"),
        "contrast_vs_base": _in_words(difference.get("contrast_accuracy")),
        "citation_f1": adapter.get("reference_citation_f1"),
        "citation_f1_vs_base": _in_words(difference.get("reference_citation_f1")),
        "ends": adapter.get("ends_cleanly"),
        "abstains": adapter.get("abstention_rate"),
        "bits": adapter.get("bits_per_character"),
        "bits_under": _short(metrics.get("asked_with")),
        "nearest_near_duplicates": None if leaks is None else round(leaks * metrics["test"]["n"]),
        "recall": metrics["train_recall"]["adapter"].get("recalled"),
        "train_loss": losses.get("train_last"),
        "validation_loss": losses.get("validation_last"),
    }
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}


def _short(asked_with: dict[str, str] | None) -> str | None:
    """Return what tells whether two runs asked with one tokenizer and template, in eight digits."""
    return sha256_json(asked_with)[:8] if asked_with else None


def _in_words(difference: dict[str, Any] | None) -> str | None:
    """Return a difference with its verdict in one cell of a table: `+0.085 better`."""
    if difference is None:
        return None
    verdict = difference["verdict"]
    return f"{difference['mean']:+.3f} {verdict if verdict in (BETTER, WORSE) else 'undecided'}"


def describe_seeds(seeds: int) -> str:
    """Return in a line what the intervals say of training seeds."""
    if seeds == 1:
        return "one seed: the difference between seeds is not in these intervals"
    return f"{seeds} seeds: a question counts with its mean over them; intervals and verdicts allow for both"


def print_summary(metrics: dict[str, Any], notice: str) -> None:
    """Print what kind of model the scores are of, the scores side by side, and the verdicts."""
    test, recall, pairs = metrics["test"], metrics["train_recall"], metrics["contrasts"].get("unseen", {})
    print(f"\n{notice}\n")
    rests = metrics["test_data"]
    of_groups = f" in {rests['groups']} groups" if rests["groups"] < test["n"] else ""
    print(f"test: {test['n']} questions{of_groups} never trained on; pairs of statements of {pairs.get('n', 0)}")
    if leaks := test.get("nearest", {}).get("copied_near_duplicate"):
        copied = f"{round(leaks * test['n'])} of its {test['n']} answers are of near-duplicates of the question"
        print(f"warning: nearest has seen the test: {copied}")
    if rests["shared_answers"]:
        shared = rests["shared_answers"]
        print(f"warning: {shared} of their answers were trained on word for word: their scores measure memory")
    systems = [system for system in SYSTEMS["test"] if system in test]
    print(f"  {'':<22} {' '.join(f'{system:>9}' for system in systems)}   adapter - base [95 % interval]")
    for name in SHOWN:
        if (difference := metrics["difference"]["base"].get(name)) is None:
            continue
        means = [pairs.get(system, {}).get(name, test[system].get(name)) for system in systems]
        columns = " ".join(
            f"{'-' if mean is None else f'{mean:.3f}':>{max(9, len(system))}}"
            for system, mean in zip(systems, means, strict=True)
        )
        interval = f"{difference['mean']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
        print(f"  {name:<22} {columns}   {interval} {difference.get('verdict', '')}".rstrip())
    shares = {system: test[system].get("abstention_rate") for system in systems}
    if abstained := [f"{system} {round(share * test['n'])}" for system, share in shares.items() if share]:
        print(f"abstained, neither right nor wrong: {', '.join(abstained)} of {test['n']} questions")
    print_lookup(metrics, systems)
    print(describe_seeds(1))
    if "judge" in metrics:
        print(f"judge: {describe_agreement(metrics['judge'])}")
        for name in OF_JUDGE:
            means = [f"{system} {test[system][name]:.3f}" for system in systems if name in test[system]]
            print(f"  {name:<23} {', '.join(means) or '-'}")
    print(f"training recall: {recall['n']} training questions asked again")
    for name in ("chrf", "recalled", "recalled_with_articles"):
        means = [f"{system} {recall[system][name]:.3f}" for system in ("base", "adapter") if name in recall[system]]
        print(f"  {name:<22} {', '.join(means) or '-'}")


def print_lookup(metrics: dict[str, Any], systems: list[str]) -> None:
    """Print how well articles were found, and each system's interval beside them; nothing where none were looked up."""
    if "articles" not in metrics:
        return
    for told in describe_recall(metrics["articles"]["recall"]):
        print(f"articles found: {told}")
    of_pairs = metrics["contrasts"].get("unseen", {}).get("interval", {})
    for name in PRIMARY:
        of_answers = {system: metrics["interval"][system].get(name) for system in systems}
        found = of_pairs if name == "contrast_accuracy" else of_answers
        told = ", ".join(f"{system} [{one[0]:.3f}, {one[1]:.3f}]" for system, one in found.items() if one)
        print(f"95 % intervals of {name}: {told or '-'}")
