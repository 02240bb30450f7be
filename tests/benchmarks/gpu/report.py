"""Says what was measured of what was wanted: report.py RESULTS.jsonl..., what run.py wrote; of several the last counts.

Writes metrics/gpu.json, and the table of goals between the markers of tests/benchmarks/README.md. Without results the
table says `not measured`, with the predictions beside it.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
REPORT = ROOT / "metrics/gpu.json"
README = HERE.with_name("README.md")
BEGIN, END = "<!-- gpu: written by tests/benchmarks/gpu/report.py -->", "<!-- gpu: end -->"
SAME_LOSS = 0.01  # of the largest loss: sums of a GPU come out otherwise each time, and a training amplifies that
BALANCED, LEAN = "balanced: finetune", "memory_efficient: finetune"
PEER, DEFAULTS = "trl sft, no checkpointing", "trl sft, its defaults"

NEEDED_CHECKS = {"varlen", "loss", "generate"}  # the others are for CUDA alone
KINDS = ("base", "check", "step", "train", "decode", "resume")

Row = dict[str, Any]


class Results:
    """Rows of results.jsonl, without those of small sizes. What asks for one that is not there raises KeyError."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = [row for row in rows if not row.get("small") and row.get("ok", True) is not None]

    def of(self, kind: str, **wanted: Any) -> list[Row]:
        """Return the rows of a kind that have these values, the last at the end."""
        found = [row for row in self.rows if row["kind"] == kind]
        found = [row for row in found if all(row.get(key) == value for key, value in wanted.items())]
        if not found:
            raise KeyError(f"{kind} {wanted}")
        return found

    def stage(self, name: str) -> Row:
        return self.of("step", name=name, status=0)[-1]

    def peak_gib(self, name: str) -> float:
        return self.stage(name)["run"]["peak_memory_bytes"] / 2**30

    def utilization(self) -> float:
        return self.stage("large: benchmark")["benchmark"]["training"]["model_flops_utilization"]

    def lora_share(self) -> float:
        return self.stage("balanced: finetune")["finetune"]["parameters"]["trainable_share"]

    def failed_checks(self) -> float:
        last = {row["case"]: row for row in self.of("check")}
        if missing := NEEDED_CHECKS - last.keys():
            raise KeyError(f"check {missing}")
        return sum(not row["ok"] for row in last.values())

    def decode(self, how: str) -> float:
        generation = self.stage("large: benchmark")["benchmark"]["generation"]
        return generation[how]["decode_tokens_per_second"]["median"]

    def faster_than(self, peer: str) -> float:
        """Return the seconds of a peer's training loop divided by ours; another loss is no measurement."""
        ratio = self.of("step", name="peers")[-1]["peers"]["ours_divided_by"][peer]  # also of one that was cut off
        if not ratio["same_loss"]:
            raise KeyError(f"{peer}: another loss")
        return 1 / ratio["loop"]

    def saved(self, case: str, compared_with: str) -> float:
        """Return the share of the peak memory that a case of training saves."""
        cases = (self.of("train", case=name)[-1]["peak_memory_bytes"] for name in (case, compared_with))
        return 1 - next(cases) / next(cases)

    def quicker(self, case: str, compared_with: str) -> float:
        """Return by which share a case of training makes more steps a second."""
        seconds = (self.of("train", case=name)[-1]["step_seconds"]["median"] for name in (compared_with, case))
        return next(seconds) / next(seconds) - 1

    def resumed_difference(self) -> float:
        """Return the largest difference of a loss after going on, as a share of the largest loss."""
        row = self.of("resume", run="killed", resumed=True)[-1]
        return row["largest_difference"] / row["largest_loss"]


@dataclass(frozen=True)
class Goal:
    """What is wanted of a number: at least or at most so much."""

    name: str
    predicted: str
    wanted: str
    limit: float
    unit: str
    measure: Callable[[Results], float]

    def shown(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.unit == "%" else f"{float(f'{value:.3g}'):,g} {self.unit}".strip()


# Predictions: arithmetic from operators and bytes, made before any GPU had run this.
GOALS = [
    Goal("checks of CUDA against the CPU that fail", "0", "at most", 0, "", Results.failed_checks),
    Goal("balanced, 43 records: whole stage", "25-40 s", "at most", 60, "s", lambda r: r.stage(BALANCED)["seconds"]),
    Goal("balanced: training", "5-8 s", "at most", 60, "s", lambda r: r.stage(BALANCED)["run"]["train_seconds"]),
    Goal("balanced: peak memory", "4 GiB", "at most", 8, "GiB", lambda r: r.peak_gib(BALANCED)),
    Goal("memory_efficient: peak memory", "2 GiB", "at most", 4, "GiB", lambda r: r.peak_gib(LEAN)),
    Goal("MFU at 4 x 4,096 tokens", "46 %", "at least", 0.45, "%", Results.utilization),
    Goal("times as fast as `trl sft`, same settings", "1.0-1.6", "at least", 1.5, "", lambda r: r.faster_than(PEER)),
    Goal("times as fast as its defaults", "2.0-2.5", "at least", 2, "", lambda r: r.faster_than(DEFAULTS)),
    Goal("tokens a second, one answer", "400-500", "at least", 300, "", lambda r: r.decode("single")),
    Goal("tokens a second, 256 answers at once", "20,000", "at least", 8000, "", lambda r: r.decode("batched")),
    Goal("killed, resumed: loss differs by", "0 %", "at most", SAME_LOSS, "%", Results.resumed_difference),
    Goal("4-bit: memory saved", "35 %", "at least", 0.75, "%", lambda r: r.saved("one.4bit", "one")),
    Goal("checkpointing: memory saved", "80 %", "at least", 0, "%", lambda r: r.saved("long.checkpointing", "long")),
    Goal("Liger: steps a second more", "10 %", "at least", 0.2, "%", lambda r: r.quicker("long", "long.noliger")),
    Goal("Liger: memory saved", "20 %", "at least", 0.6, "%", lambda r: r.saved("long", "long.noliger")),
    Goal("no padding: steps a second more", "20 %", "at least", 0, "%", lambda r: r.quicker("uneven", "uneven.sdpa")),
    Goal("LoRA fused: steps a second more", "15 %", "at least", 0, "%", lambda r: r.quicker("long", "long.peft")),
    Goal("LoRA: share of the parameters", "0.9 %", "at most", 0.01, "%", Results.lora_share),
]


def judge(rows: list[Row]) -> list[dict[str, Any]]:
    """Return each goal with what was predicted, wanted and measured, and whether it is met; None: not measured."""
    results, judged = Results(rows), []
    for goal in GOALS:
        try:
            measured = goal.measure(results)
        except KeyError:
            measured, met = None, None
        else:
            met = measured >= goal.limit if goal.wanted == "at least" else measured <= goal.limit
        wanted = f"{goal.wanted} {goal.shown(goal.limit)}"
        shown = "not measured" if measured is None else goal.shown(measured)
        facts = {"goal": goal.name, "wanted": wanted, "predicted": goal.predicted}
        judged.append({**facts, "measured": measured, "shown": shown, "met": met})
    return judged


def table(judged: list[dict[str, Any]], card: str | None) -> str:
    """Return the goals as a Markdown table."""
    lines = [f"| {card or 'no GPU yet'} | wanted | predicted | measured | met |", "| --- | --- | --- | --- | --- |"]
    for row in judged:
        met = {None: "", True: "yes", False: "**no**"}[row["met"]]
        lines.append(f"| {row['goal']} | {row['wanted']} | {row['predicted']} | {row['shown']} | {met} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Say what was measured of what was wanted.")
    parser.add_argument("results", type=Path, nargs="*")
    parser.add_argument("--output", type=Path, default=REPORT)
    parser.add_argument("--readme", type=Path, default=README)
    arguments = parser.parse_args()
    rows = [json.loads(line) for path in arguments.results for line in path.read_text(encoding="utf-8").splitlines()]
    cards = {row["card"] for row in rows}
    if len(cards) > 1:
        sys.exit(f"results of several machines: {', '.join(map(str, cards))}; make a report of each")
    judged, card = judge(rows), next(iter(cards), None)
    text = table(judged, card)
    print(text)
    readme = arguments.readme.read_text(encoding="utf-8")
    before, rest = readme.split(BEGIN)
    arguments.readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    if rows:
        kinds = {kind: [row for row in Results(rows).rows if row["kind"] == kind] for kind in KINDS}
        report = {"card": card, "goals": judged, **kinds}
        arguments.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
