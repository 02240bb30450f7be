"""BERTScore: how alike an answer and its reference are to an encoder of one's own choice, off unless asked for."""

import torch
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from civilqa.law.korean import normalize
from civilqa.program.errors import ModelError
from civilqa.program.files import at_hand
from civilqa.scoring.predictions import SYSTEMS, Prediction


class BertScore:
    """An encoder that says how alike two texts are by the meaning of their tokens in context."""

    def __init__(self, name: str, device: str) -> None:
        folder = at_hand(name)
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"params.yaml: evaluate.bert_score_model: '{name}' is no folder with a config.json; fetch an encoder, "
                "e.g. `hf download klue/roberta-base --local-dir encoder`, and name its folder"
            )
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
            self.model = AutoModel.from_pretrained(str(folder), use_safetensors=True).to(device).eval()
        except (OSError, ValueError) as error:
            raise ModelError(f"params.yaml: evaluate.bert_score_model: '{name}' cannot be loaded: {error}") from None
        self.limit = self.model.config.max_position_embeddings

    @torch.inference_mode()
    def score(self, answer: str, reference: str) -> float:
        """Return BERTScore F1 in -1 to 1, in practice 0 to 1, higher is better; identical texts have 1, an empty one 0.

        Greedy matching of the last layer's vectors by cosine, without idf weights and without rescaling to a baseline:
        even unrelated texts have 0.6 or more with most encoders. Texts are cut at the encoder's length, often 512
        tokens. Compare values of the same encoder only.

        Source: Zhang et al. 2020, BERTScore: evaluating text generation with BERT (arXiv:1904.09675).
        """
        if not answer.strip() or not reference.strip():
            return 0.0
        left, right = self._vectors(answer), self._vectors(reference)
        # Shapes: (tokens of the answer, hidden) and (tokens of the reference, hidden).
        similarity = left @ right.T
        precision, recall = similarity.max(dim=1).values.mean(), similarity.max(dim=0).values.mean()
        return float(2 * precision * recall / (precision + recall))

    def _vectors(self, text: str) -> torch.Tensor:
        """Return unit vectors of a text's tokens, the special ones at its ends left out."""
        cut = {"truncation": True, "max_length": self.limit}
        encoded = self.tokenizer(normalize(text), return_tensors="pt", return_special_tokens_mask=True, **cut)
        special = encoded.pop("special_tokens_mask")[0].bool()
        hidden = self.model(**encoded.to(self.model.device)).last_hidden_state[0].double()
        return torch.nn.functional.normalize(hidden[~special.to(hidden.device)], dim=-1)


def add_bert_scores(lines: list[Prediction], encoder: BertScore) -> None:
    """Put the scores of an encoder into predictions."""
    for line in tqdm(lines, desc="encoder"):
        for answer in (line[system] for system in SYSTEMS["test"] if system in line):
            answer["scores"]["bert_score"] = encoder.score(answer["answer"], line["reference"])
