"""Heads that name the next token from the states of an earlier layer (self-supervised exits page, 1.3).

On a small model the matrix to the vocabulary costs as much as several layers. So a head may share the model's
own, ask a probe before it multiplies by it, or name tokens of a short list alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lessen.model.architecture import Architecture
from lessen.model.ask import Ask
from lessen.model.linear import FEW_TOKENS, Linear, multiply
from lessen.model.norms import norm
from lessen.model.vocabulary import Vocabulary
from lessen.native import native_for
from lessen.plan import LanguageExitShape


class LanguageHead(nn.Module):
    """One language exit.

    A copy of the final norm; then a matrix of its own (`full`), or the correction x + B A x, where B is zero
    at first, and the model's own matrix; `shared` corrects nothing, and is never trained. Hidden states are
    those between layers, never normed before.

    What a head chooses from are its outcomes: every token, or those of its short list and, last, that it is
    none of them.

    Attributes:
        words: Ids of the tokens of the short list, `[words]`, ascending.
        cut: What a probe's logit must reach for the head to be asked, a scalar; minus infinity lets all pass.
    """

    words: Tensor
    cut: Tensor

    def __init__(self, architecture: Architecture, shape: LanguageExitShape) -> None:
        super().__init__()
        width = architecture.hidden_size
        self.kind = shape.kind
        self.vocabulary, self.scale = architecture.vocab_size, architecture.language_head_scale
        self.norm = norm(architecture)
        self.output = Linear(width, architecture.vocab_size, bias=False) if shape.kind == "full" else None
        self.down = None if shape.rank is None else Linear(width, shape.rank, bias=False)
        self.up = None if shape.rank is None else Linear(shape.rank, width, bias=False)
        self.probe = Linear(width, 1) if shape.kind == "gate" else None
        if shape.kind == "gate":
            self.register_buffer("cut", torch.tensor(float("-inf")))
        self.elsewhere = Linear(width, 1) if shape.kind == "shortlist" else None
        if shape.kind == "shortlist":
            self.register_buffer("words", torch.zeros(shape.words or 0, dtype=torch.long))
        self._ask: Ask | None = None

    def corrected(self, hidden: Tensor) -> Tensor:
        """States between layers to what the matrix to the vocabulary multiplies, `[tokens, hidden]`."""
        normed = self.norm(hidden)
        if self.down is None or self.up is None:
            return normed
        return normed + self.up(self.down(normed))

    def forward(self, hidden: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Logits of the next token.

        Args:
            hidden: `[tokens, hidden]`, as the layer put them out.
            vocabulary: The model's own.

        Returns:
            `[tokens, vocabulary]`, float32 or wider; minus infinity for what is not on a short list.
        """
        return self.over_vocabulary(self.judged(self.corrected(hidden), vocabulary))

    def outcomes(self, hidden: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Logits of the outcomes: `judged(corrected(hidden))`, in one call of the kernels where they can.

        Args:
            hidden: `[tokens, hidden]`, as the layer put them out.
            vocabulary: The model's own.

        Returns:
            `[tokens, outcomes]`, float32 or wider.
        """
        few = self.elsewhere is not None and 0 < len(hidden) <= FEW_TOKENS and not self.training
        kernels = native_for(hidden, narrow=True) if few else None
        if kernels is not None:
            if self._ask is None:
                self._ask = Ask(self)
            if (made := self._ask.ready(kernels, vocabulary)) is not None:
                return kernels.outcomes(made, hidden)
        return self.judged(self.corrected(hidden), vocabulary)

    def judged(self, corrected: Tensor, vocabulary: Vocabulary) -> Tensor:
        """Logits of the outcomes.

        Args:
            corrected: As `corrected` returned.
            vocabulary: The model's own.

        Returns:
            `[tokens, outcomes]`, float32 or wider.
        """
        if len(corrected) == 0:
            outcomes = self.vocabulary if self.elsewhere is None else len(self.words) + 1
            return corrected.new_empty(0, outcomes, dtype=_at_least_float32(corrected.dtype))
        if self.elsewhere is not None:
            listed = vocabulary.listed(self.words).product(self._scaled(corrected))
            logits = torch.cat([listed, self.elsewhere(corrected).to(listed.dtype)], 1)
        elif self.output is None:
            logits = vocabulary.unembed(corrected)
        else:
            logits = self.output(self._scaled(corrected))
        return logits.to(_at_least_float32(logits.dtype))

    def among(self, corrected: Tensor, matrix: Tensor, tokens: Tensor | None) -> Tensor:
        """Logits of some tokens, or of the outcomes of a short list: the training form.

        Args:
            corrected: As `corrected` returned.
            matrix: The model's own, `[vocabulary, hidden]`; not used by a `full` head. Products are made in
                its type.
            tokens: Ids, `[chosen]`; None: all. A head with a short list goes by that.

        Returns:
            `[tokens, chosen]` or `[tokens, outcomes]`, float32 or wider.
        """
        rows = matrix if self.output is None else self.output.weight
        chosen = tokens if self.elsewhere is None else self.words
        rows = (rows if chosen is None else rows[chosen]).to(matrix.dtype)
        logits = multiply(self._scaled(corrected).to(matrix.dtype), rows)
        logits = logits.to(_at_least_float32(logits.dtype))
        if self.elsewhere is None:
            return logits
        return torch.cat([logits, self.elsewhere(corrected).to(logits.dtype)], 1)

    def outcomes_of(self, logits: Tensor) -> Tensor:
        """Logits of the whole vocabulary as logits of the outcomes: what is on no list counts together.

        Args:
            logits: Of the model, `[tokens, vocabulary]`.

        Returns:
            `[tokens, outcomes]`; their softmax has the same sums.
        """
        if self.elsewhere is None:
            return logits
        logits = logits.to(_at_least_float32(logits.dtype))
        others = logits.index_fill(1, self.words, float("-inf")).logsumexp(1, keepdim=True)
        return torch.cat([logits[:, self.words], others], 1)

    def over_vocabulary(self, judged: Tensor) -> Tensor:
        """What `judged` returned, as `[tokens, vocabulary]`: minus infinity off a short list."""
        if self.elsewhere is None:
            return judged
        found = judged.new_full((len(judged), self.vocabulary), float("-inf"))
        found[:, self.words] = judged[:, :-1]
        return found

    def named(self, judged: Tensor) -> Tensor:
        """The likeliest tokens by what `judged` returned, `[tokens]`, int64."""
        return self.tokens_at(self.of_tokens(judged).argmax(-1))

    def of_tokens(self, judged: Tensor) -> Tensor:
        """Of what `judged` returned, the logits of outcomes that are tokens."""
        return judged if self.elsewhere is None else judged[:, :-1]

    def tokens_at(self, places: Tensor) -> Tensor:
        """Which tokens outcomes are that are tokens, `[tokens]`, int64."""
        return places if self.elsewhere is None else self.words[places]

    def silent(self, places: Tensor) -> Tensor:
        """Which outcomes are no token, `[tokens]`, bool.

        Args:
            places: Of outcomes.
        """
        if self.elsewhere is None:
            return torch.zeros_like(places, dtype=torch.bool)
        return places == len(self.words)

    def _scaled(self, corrected: Tensor) -> Tensor:
        """As the model scales last states itself, where its own matrix is not multiplied by."""
        return corrected if self.scale == 1 else corrected * self.scale

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ask": None}

    def asked(self, hidden: Tensor) -> Tensor:
        """Which tokens are worth multiplying by a large matrix, `[tokens]` bool: all without a probe."""
        if self.probe is None:
            return torch.ones(len(hidden), dtype=torch.bool, device=hidden.device)
        return self.probed(hidden) >= self.cut

    def probed(self, hidden: Tensor) -> Tensor:
        """The probe's logit that the head is right, `[tokens]`, float32 or wider.

        It learns from fixed states: no gradient reaches the norm through it.
        """
        if self.probe is None:
            raise ValueError(f"a head of kind {self.kind} has no probe")
        logit = self.probe(self.norm(hidden).detach())[:, 0]
        return logit.to(_at_least_float32(logit.dtype))


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.itemsize < 4 else dtype


@torch.no_grad()
def start(head: LanguageHead, final_norm: nn.Module, matrix: Tensor, *, fresh: bool = False) -> None:
    """Give a new head its first weights: those of the model's own head, with no correction.

    Right after the last layer such a head would answer exactly as the model does.

    Args:
        head: Of a kind; its draws come from torch's generator.
        final_norm: The model's.
        matrix: To the vocabulary, `[vocabulary, hidden]`; copied by a `full` head.
        fresh: Draw norm and own matrix instead, as the paper's code does.
    """
    if fresh:
        nn.init.ones_(head.norm.weight)  # type: ignore[arg-type]
        if getattr(head.norm, "bias", None) is not None:
            nn.init.zeros_(head.norm.bias)  # type: ignore[arg-type]
    else:
        head.norm.load_state_dict(final_norm.state_dict())
    if head.output is not None:
        if fresh:
            nn.init.normal_(head.output.weight, std=0.02)
        else:
            head.output.weight.copy_(matrix)
    if head.down is not None and head.up is not None:
        nn.init.normal_(head.down.weight, std=head.down.in_features**-0.5)
        nn.init.zeros_(head.up.weight)
    for single in (head.probe, head.elsewhere):
        if single is not None:
            nn.init.zeros_(single.weight)
            nn.init.zeros_(single.bias)
    if head.probe is not None:
        head.cut.fill_(float("-inf"))
