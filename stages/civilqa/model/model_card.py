"""The README.md of an adapter and of a merged model: what it is, what it was made from, what it may be used for.

Their texts are the templates beside this module.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from civilqa.base_model.categories import Categories, main_category
from civilqa.model.evaluation import EVALUATION, TRAINING, read_metrics
from civilqa.model.provenance import Adapter, MergedManifest
from civilqa.program.files import write_text

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
    metadata = ModelCardData(
        base_model=identity["name"] if identity["weights"] == "hub" else None,
        language="ko",
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["korean", "law", "lora", "peft", "sft"],
    ).to_yaml(line_break="\n")
    _write(
        folder, "adapter_card.md.jinja", metadata=metadata, base=identity, categories=categories, notice=notice, **facts
    )


def write_merged_card(folder: Path, adapter: Adapter, categories: Categories, manifest: MergedManifest) -> None:
    """Write the card of the model in a folder that an adapter was merged into: what it scored, and how it is asked."""
    _write(
        folder,
        "merged_card.md.jinja",
        adapter=adapter,
        base_on_hub=adapter.profile.weights == "pretrained" and not Path(adapter.profile.name).is_dir(),
        categories=categories,
        main=main_category(categories),
        manifest=manifest,
        scores=SCORES,
        evaluation=read_metrics(EVALUATION, adapter),
        training=read_metrics(TRAINING, adapter),
    )


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
