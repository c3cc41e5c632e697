"""Texts of ways to decode, kept batch by batch, and what they save against full depth, text by text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lessen.artefact import write_json
from lessen.hf import LessenForCausalLM
from lessen.measure.decoded import Decoded, continued
from lessen.measure.generation_speed import tie_at
from lessen.runtime.decoding import Decoding
from lessen.runtime.tally import Costs, Tally, TextTally

AT_ONCE = 8
TIE = 1e-5
"""Of the largest logit: two tokens nearer than that are equally likely in float32. It is also what our logits
may be off by from Hugging Face's, so gaps are printed beside the count."""

Prompts = Sequence[Sequence[int]]


class Batches:
    """Texts of finished batches, and what they took, in files: a stopped run goes on from them.

    Args:
        model: Whose.
        folder: For them.
        tokens: New ones of each text at most.
    """

    def __init__(self, model: LessenForCausalLM, folder: Path, tokens: int) -> None:
        self.model, self.folder, self.tokens = model, folder, tokens

    def continued(self, prompts: Prompts, decoding: Decoding) -> tuple[list[list[int]], Tally]:
        """Texts, ended by their stop tokens, and what they took."""
        asked = json.dumps([prompts, repr(decoding), self.tokens])
        folder = self.folder / hashlib.sha256(asked.encode()).hexdigest()[:16]
        texts: list[list[int]] = []
        tallies = []
        for number, start in enumerate(range(0, len(prompts), AT_ONCE)):
            place = folder / f"{number:04}.json"
            if not place.exists():
                found, tally = continued(self.model, prompts[start : start + AT_ONCE], decoding, self.tokens)
                took = [asdict(text) for text in tally.texts]
                content = {"texts": found, "took": took, "steps": tally.steps, "reads": tally.layer_reads}
                write_json(place, content)
            content = json.loads(place.read_text())
            texts += content["texts"]
            tallies.append(self._tally(content))
        return texts, Tally.together(tallies)

    def _tally(self, content: dict[str, Any]) -> Tally:
        tally = Tally()
        tally.costs = Costs(self.model.transformer)
        tally.texts = [TextTally(**text) for text in content["took"]]
        tally.steps, tally.layer_reads = content["steps"], content["reads"]
        return tally


def saved(
    took: Sequence[float], tokens: Sequence[int], whole: Sequence[float], of_whole: Sequence[int]
) -> dict[str, float]:
    """Share of something saved against full depth, per token, and its standard error over texts.

    The error is paired: of each text, what it took is held against what full depth took for the same prompt,
    so that what makes a text dear for both is no error (delta method for a ratio of two ratios).

    Args:
        took: By each text.
        tokens: Of each text.
        whole: By the text of full depth after the same prompt.
        of_whole: Tokens of that one.
    """
    each, at_full = sum(took) / sum(tokens), sum(whole) / sum(of_whole)
    off = [
        (one - each * count) / (each * sum(tokens)) - (other - at_full * its) / (at_full * sum(of_whole))
        for one, count, other, its in zip(took, tokens, whole, of_whole, strict=True)
    ]
    share = each / at_full
    return {"mean": 1 - share, "se": share * sum(value**2 for value in off) ** 0.5}


def counted(line: Decoded, tally: Tally, whole: Tally) -> dict[str, Any]:
    """The figures of a way of decoding, and what it saves against full depth."""
    tokens, its = ([len(text.layers) for text in each.texts] for each in (tally, whole))

    def of(field: str) -> dict[str, float]:
        one, other = ([getattr(text, field) for text in each.texts] for each in (tally, whole))
        return saved(one, tokens, other, its)

    return line.as_dict() | {
        "weights_per_token": tally.weights_per_token,
        "weights_saved": of("weights"),
        "passes_saved": of("layer_weights"),
        "macs_saved": of("macs"),
    }


def identity(model: LessenForCausalLM, prompts: Prompts, off: Any, found: Any) -> dict[str, Any]:
    """How many texts are those of full depth; of the others, which differ by a tie."""
    gaps = [
        tie_at(model, prompt, own, other)
        for prompt, own, other in zip(prompts, off, found, strict=True)
        if own != other
    ]
    ties = sum(gap <= TIE for gap in gaps)
    return {"texts": len(prompts), "identical": len(prompts) - len(gaps), "ties": ties, "gaps": sorted(gaps)}
