"""The adapter's README.md: what it is, what it was made from, what it may be used for."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from civilqa.program.files import write_text

CARD_FILE = "README.md"
TAGS = ["korean", "law", "lora", "peft", "sft"]

TEMPLATE = """---
{metadata}
---

# 민법 질의응답 LoRA 어댑터

{notice}

LoRA adapter for questions and answers on Korean civil law (민법), trained by a reproducible pipeline:
the same data, parameters and package versions give the same weights.

## 용도와 한계 · Intended use and limits

- 민법 질문에 답하는 초안을 만들고, 미세조정 방법을 연구하고 평가하는 데 씁니다.
- **법률 자문이 아닙니다.** 답변을 그대로 법률 판단에 쓰지 마십시오. 없는 조문을 인용하거나 바뀐 법령을 모를 수
  있으므로, 인용한 조문은 반드시 원문으로 확인하십시오.
- For drafts that a person checks, and for research on fine-tuning. **It gives no legal advice**: it can cite
  articles that do not exist, and it knows no statute newer than its data.

## 사용 방법 · How to load it

{usage}

## 기반 모델 · Base model

{base}

## 데이터 · Data

{data}

## 학습 설정 · Training

{training}

## 학습 결과 · Training metrics

{metrics}

Scores on questions that were never trained on are the evaluate stage's (`metrics/evaluate.json`); the losses
here say only how well the training data was learned.
"""

HUB_USAGE = """```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("models/adapter")  # fetches the base model at the revision below
tokenizer = AutoTokenizer.from_pretrained("models/adapter")
```"""
PROJECT_USAGE = """The base model is not on the hub: its weights are {weights}. Ask the adapter inside its project, with
`python stages/chat.py`."""


def write_model_card(folder: Path, facts: dict[str, dict[str, Any]], identity: dict[str, Any], notice: str) -> None:
    """Write the card of the adapter in a folder; its bytes depend on the arguments alone.

    Args:
        facts: tables by section: `data`, `training` and `metrics`, each from what to its value.
        identity: of the base model, as base_identity returns it.
        notice: what a reader of this model's results must be told.
    """
    on_hub = identity["weights"] == "hub"
    metadata = ModelCardData(
        base_model=identity["name"] if on_hub else None,
        language="ko",
        library_name="peft",
        pipeline_tag="text-generation",
        tags=TAGS,
    )
    weights = {"random": "drawn at random from a seed", "folder": "those of a local folder"}
    card = TEMPLATE.format(
        metadata=metadata.to_yaml(line_break="\n"),
        notice=f"> {notice}",
        usage=HUB_USAGE if on_hub else PROJECT_USAGE.format(weights=weights[identity["weights"]]),
        base=_table(identity),
        data=_table(facts["data"]),
        training=_table(facts["training"]),
        metrics=_table(facts["metrics"]),
    )
    write_text(folder / CARD_FILE, card)


def _table(facts: dict[str, Any]) -> str:
    rows = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {inner}", inner_value) for inner, inner_value in value.items()]
        else:
            rows.append((name, value))
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])
