"""A profile: everything that depends on the base model. `model.profile` in params.yaml selects one."""

from typing import Literal

from civilqa.program.parameters import Section, Seed, Text, read_choice, read_sections


class ModelParams(Section):
    profile: Text
    seed: Seed


class Profile(Section):
    """One entry of `profiles`. Only `name` must be given: `profiles.mine: {name: <hub id or folder>}` is a profile."""

    name: Text
    revision: Text | None = None
    weights: Literal["random", "pretrained"] = "pretrained"
    tokenizer: Text | None = None
    template: Text | None = None
    pad_token: Text | None = None

    @property
    def tokenizer_source(self) -> str:
        """The folder or hub id of the tokenizer."""
        return self.tokenizer or self.name

    @property
    def notice(self) -> str:
        """What a reader must be told beside any result of this model, in Korean."""
        if self.weights == "random":
            return (
                f"무작위 가중치에서 시작한 '{self.name}' 모델의 결과입니다. 파이프라인이 작동하는지만 보여 주며, "
                "법률 지식은 없습니다. 답변을 법률 판단에 쓰지 마십시오."
            )
        until = "조문은 기준일(2026-06-08) 이후 바뀌었을 수 있습니다"
        return f"'{self.name}' 모델의 결과입니다. 법률 자문이 아니며, {until}."

    @property
    def metrics_notice(self) -> str:
        """The same for metrics files, which are ASCII."""
        if self.weights == "random":
            return "Random base weights: proves that the pipeline works, knows no law."
        return "No legal advice. Statutes as of 2026-06-08."


def read_profile() -> tuple[ModelParams, Profile]:
    """Return the model section and the profile that it selects."""
    (model,) = read_sections(model=ModelParams)
    return model, read_choice("profiles", model.profile, Profile, "model.profile")
