"""The README.md of an adapter and of a merged model: what it is, what it was made from, what it may be used for.

Their texts are the templates beside this module.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from civilqa.base_model.categories import Categories, main_category
from civilqa.model.evaluation import EVALUATION, TRAINING, read_metrics
from civilqa.model.provenance import Adapter, MergedManifest
from civilqa.program.files import at_hand, write_text

# The hub's names of the bases' licences, which hold for what is made of them; of any other base the user must say.
LICENSES = {"meta-llama/Llama-3.2-": "llama3.2", "google/gemma-": "gemma"}
DATASET = "civil-law-qa"  # the hub takes a name that is no data set there for a mere name
METRICS = {"chrf": "chrf", "rouge_l": "rouge", "bits_per_character": "bits_per_character"}  # as the hub names them
SCORES = ("bits_per_character", "chrf", "rouge_l", "citation_f1", "stop_rate")


def write_adapter_card(
    folder: Path, facts: dict[str, dict[str, Any]], identity: dict[str, Any], categories: Categories, notice: str
) -> None:
    """Write the card of the adapter in a folder; its bytes depend on the arguments alone.

    Args:
        facts: tables by section: `data`, `training` and `metrics`, each from what to its value.
        identity: of the base model, as base_identity returns it.
        notice: what a reader of this model's results must be told.
    """
    metadata = _metadata("peft", identity["name"] if identity["weights"] == "hub" else None)
    _write(
        folder, "adapter_card.md.jinja", metadata=metadata, base=identity, categories=categories, notice=notice, **facts
    )


def write_merged_card(folder: Path, adapter: Adapter, categories: Categories, manifest: MergedManifest) -> None:
    """Write the card of the model in a folder that an adapter was merged into: what it scored, and how it is asked."""
    on_hub = adapter.profile.weights == "pretrained" and not at_hand(adapter.profile.name).is_dir()
    evaluation = read_metrics(EVALUATION, adapter)
    _write(
        folder,
        "merged_card.md.jinja",
        metadata=_metadata("transformers", adapter.profile.name if on_hub else None, evaluation),
        adapter=adapter,
        categories=categories,
        main=main_category(categories),
        manifest=manifest,
        scores=SCORES,
        evaluation=evaluation,
        training=read_metrics(TRAINING, adapter),
    )


def _metadata(library: str, base: str | None, evaluation: dict[str, Any] | None = None) -> str:
    """Return what the hub reads at the head of a card, as YAML.

    Args:
        base: the base's id on the hub, None where it is not there.
        evaluation: as in metrics/evaluate.json; its scores become the card's `model-index`.
    """
    scored = evaluation["test"].get("adapter", {}) if evaluation else {}
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=DATASET,
            dataset_name="questions on Korean civil law that were never trained on",
            metric_type=kind,
            metric_name=name,
            metric_value=round(scored[name], 4),
        )
        for name, kind in METRICS.items()
        if name in scored
    ]
    return ModelCardData(
        base_model=base,
        license=next((name for prefix, name in LICENSES.items() if (base or "").startswith(prefix)), "other"),
        datasets=[DATASET],
        language="ko",
        library_name=library,
        metrics=sorted(set(METRICS.values())),
        pipeline_tag="text-generation",
        tags=["civil-law", "korean", "law", "lora", "sft"],
        **({"model_name": "civil-law", "eval_results": results} if results else {}),
    ).to_yaml(line_break="\n")


def _write(folder: Path, template: str, **values: Any) -> None:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # noqa: S701 - Markdown, not HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    write_text(folder / "README.md", environment.get_template(template).render(values))
