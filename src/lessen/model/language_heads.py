"""Heads that name the next token from the states of an earlier layer (self-supervised exits page, 1.3).

On a small model the matrix to the vocabulary costs as much as several layers. So a head may share the model's
own, ask a probe before it multiplies by it, or judge by a short list of tokens and multiply only for those
tokens of a text that leave.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lessen.model.architecture import Architecture
from lessen.model.linear import Linear, multiply
from lessen.model.norms import norm
from lessen.plan import LanguageExitShape

Unembed = Callable[[Tensor], Tensor]
"""The model's own way from normed hidden states `[tokens, hidden]` to logits `[tokens, vocabulary]`."""


class LanguageHead(nn.Module):
    """One language exit.

    A copy of the final norm; then a matrix of its own (`full`), or the correction x + B A x, where B is zero
    at first, and the model's own matrix; `shared` corrects nothing, and is never trained. Hidden states are
    those between layers, never normed before.

    Attributes:
        words: Ids of the tokens of the short list, `[words]`.
        cut: What a probe's logit must reach for the head to be asked, a scalar; minus infinity lets all pass.
    """

    words: Tensor
    cut: Tensor
    _short: tuple[Tensor, int, Tensor] | None = None

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
        if shape.kind == "shortlist":
            self.register_buffer("words", torch.zeros(shape.words or 0, dtype=torch.long))

    def corrected(self, hidden: Tensor) -> Tensor:
        """States between layers to what the matrix to the vocabulary multiplies, `[tokens, hidden]`."""
        normed = self.norm(hidden)
        if self.down is None or self.up is None:
            return normed
        return normed + self.up(self.down(normed))

    def forward(self, hidden: Tensor, unembed: Unembed) -> Tensor:
        """Logits of the whole vocabulary, whatever the kind: the training form.

        Args:
            hidden: `[tokens, hidden]`, as the layer put them out.
            unembed: The model's own matrix; not used by a `full` head.

        Returns:
            `[tokens, vocabulary]`, float32 or wider.
        """
        return self.named(self.corrected(hidden), unembed)

    def named(self, corrected: Tensor, unembed: Unembed) -> Tensor:
        """The same from what `corrected` returned."""
        if len(corrected) == 0:
            return corrected.new_empty(0, self.vocabulary, dtype=_at_least_float32(corrected.dtype))
        logits = unembed(corrected) if self.output is None else self.output(self._scaled(corrected))
        return logits.to(_at_least_float32(logits.dtype))

    def among(self, corrected: Tensor, matrix: Tensor, tokens: Tensor | None) -> Tensor:
        """Logits of some tokens: what `named` says of them, for less.

        Args:
            corrected: As `corrected` returned.
            matrix: The model's own, `[vocabulary, hidden]`; not used by a `full` head. Products are made in
                its type.
            tokens: Ids, `[chosen]`; None: all.

        Returns:
            `[tokens, chosen]`, float32 or wider.
        """
        rows = matrix if self.output is None else self.output.weight
        rows = (rows if tokens is None else rows[tokens]).to(matrix.dtype)
        logits = multiply(self._scaled(corrected).to(matrix.dtype), rows)
        return logits.to(_at_least_float32(logits.dtype))

    def _scaled(self, corrected: Tensor) -> Tensor:
        """As the model scales last states itself, where its own matrix is not multiplied by."""
        return corrected if self.scale == 1 else corrected * self.scale

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

    def judged(
        self, corrected: Tensor, unembed: Unembed, matrix: Tensor, scales: Tensor | None = None
    ) -> Tensor:
        """Logits a token's sureness is judged by: of the short list, or of the whole vocabulary.

        Args:
            corrected: As `corrected` returned.
            unembed: The model's own matrix, as a function.
            matrix: The same, `[vocabulary, hidden]`; rows of it are kept for the short list.
            scales: Of its rows, `[vocabulary]`, where it has 8 bits.

        Returns:
            `[tokens, words or vocabulary]`, float32 or wider.
        """
        if self.kind != "shortlist" or len(corrected) == 0:
            return self.named(corrected, unembed)
        logits = multiply(self._scaled(corrected), self._rows_of(matrix, scales))
        return logits.to(_at_least_float32(logits.dtype))

    def _rows_of(self, matrix: Tensor, scales: Tensor | None) -> Tensor:
        """The short list's rows, gathered once; anew when the matrix was replaced or changed."""
        if self._short is None or self._short[0] is not matrix or self._short[1] != matrix._version:
            rows = matrix.detach()[self.words]
            if scales is not None:
                rows = rows * scales.detach()[self.words, None]
            self._short = matrix, matrix._version, rows
        return self._short[2]


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
    if head.probe is not None:
        nn.init.zeros_(head.probe.weight)
        nn.init.zeros_(head.probe.bias)
        head.cut.fill_(float("-inf"))
