"""What the layers begin with: tables of tokens, positions and segments."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lessen.errors import InputError
from lessen.model.architecture import Architecture
from lessen.model.dropout import Dropout
from lessen.model.few_bits import BinaryEmbedding, Int8Embedding
from lessen.model.linear import Linear
from lessen.model.matrices import table
from lessen.model.norms import norm, norm_of
from lessen.model.prepared import Prepared, Settings, can_read, matrix_of
from lessen.model.rows import Rows
from lessen.native import EmbeddingTables, MatrixOf, Native, native_for
from lessen.native.matrix import Kind
from lessen.plan import Shape


class Embeddings(nn.Module):
    """Token, position and segment tables, those there are, summed; normed; projected if narrower.

    The token table may be stored as a product: a narrow table, and a matrix that widens it; or in one bit.

    Attributes:
        word_dropout: Share of the tokens that are left out in training.
    """

    word_dropout = 0.0

    _tables: Prepared[EmbeddingTables] | None = None

    def __init__(self, architecture: Architecture, shape: Shape) -> None:
        super().__init__()
        width, rank = architecture.embedding_size, shape.embedding_rank
        self.offset = architecture.position_offset
        self.token = table(architecture.vocab_size, rank or width, shape.embedding_bits, shape.latent)
        self.widen = None if rank is None else Linear(rank, width, bias=False)
        self.position = (
            None
            if architecture.position in ("rotary", "relative")
            else nn.Embedding(architecture.max_position_embeddings, width)
        )
        self.segment = (
            nn.Embedding(architecture.type_vocab_size, width) if architecture.type_vocab_size else None
        )
        self.norm = norm(architecture, width) if architecture.embedding_norm else None
        self.dropout = Dropout(architecture.dropout)
        self.project = Linear(width, architecture.hidden_size) if width != architecture.hidden_size else None

    def forward(self, ids: Tensor, rows: Rows, segments: Tensor | None = None) -> Tensor:
        """Token ids `[tokens]` (and segment ids `[tokens]`, zero if None) to `[tokens, hidden]`.

        Raises:
            InputError: When a table has no row for a token; not known on a GPU, which stops at once.
        """
        try:
            return self._summed(ids, rows, segments)
        except IndexError as error:
            raise InputError(self._out_of_range(ids, rows, segments)) from error

    def _out_of_range(self, ids: Tensor, rows: Rows, segments: Tensor | None) -> str:
        """Which of the numbers no table has a row for."""
        asked = [("token id", ids, self.token)]
        if segments is not None and self.segment is not None:
            asked.append(("token type", segments, self.segment))
        for name, numbers, own in asked:
            wrong = numbers[(numbers < 0) | (numbers >= len(own.weight))]
            if len(wrong):
                return f"{name} {int(wrong[0])}: the model knows 0 to {len(own.weight) - 1}"
        most = 0 if self.position is None else len(self.position.weight) - self.offset
        return f"a row of {int(rows.positions.max()) + 1} tokens is longer than the model's {most} positions"

    def _summed(self, ids: Tensor, rows: Rows, segments: Tensor | None) -> Tensor:
        hidden = self._read(ids, rows, segments)
        if hidden is None:
            hidden = self.token(ids)
            if self.widen is not None:
                hidden = self.widen(hidden)
            if self.training and self.word_dropout:
                hidden = hidden * (torch.rand(len(ids), 1, device=ids.device) >= self.word_dropout)
            if self.position is not None:
                hidden = hidden + self.position(rows.positions + self.offset)
            if self.segment is not None:
                hidden = hidden + (self.segment.weight[0] if segments is None else self.segment(segments))
            hidden = self.dropout(hidden if self.norm is None else self.norm(hidden))
        return hidden if self.project is None else self.project(hidden)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_tables": None}

    def _read(self, ids: Tensor, rows: Rows, segments: Tensor | None) -> Tensor | None:
        """The sum, normed, in one call of the kernels where they can: a dozen small steps otherwise."""
        if self.training or self.dropout.training or rows.kept is not None:
            return None
        if not isinstance(self.norm, nn.LayerNorm) or self.norm.weight is None:
            return None
        if not all(_counts(each, rows) for each in (ids, segments) if each is not None):
            return None
        kernels = native_for(self.norm.weight)
        if kernels is None:
            return None
        if self._tables is None:
            self._tables = Prepared()
        made = self._tables.ready(kernels, partial(_made, self), self.modules, _settings(self), self)
        return None if made is None else kernels.embedded(made, ids, rows.lengths, segments)


def _counts(numbers: Tensor, rows: Rows) -> bool:
    """Whether the kernels can read one of these for each token."""
    plain = type(numbers) is Tensor and numbers.dtype == torch.int64 and numbers.device.type == "cpu"
    return plain and numbers.shape == (rows.tokens,)


def _settings(of: Embeddings) -> Settings:
    """What tables go by besides modules and tensors, where these can be changed."""
    return of.offset, getattr(of.norm, "eps", None)


def _made(of: Embeddings, kernels: Native) -> EmbeddingTables | None:
    """Tables as the kernels take them; None where they cannot, or shapes do not go together."""
    tables = [each for each in (of.position, of.segment) if each is not None]
    parts = [each for each in (of.token, of.widen, *tables, of.norm) if each is not None]
    if not can_read(parts, (nn.Embedding, BinaryEmbedding, Linear, nn.LayerNorm)):
        return None
    if any(isinstance(each, nn.Embedding) and each.max_norm is not None for each in parts):
        return None
    token = _stored(of.token)
    width = token.in_features if of.widen is None else len(of.widen.weight)
    if of.widen is not None and of.widen.weight.shape[1] != token.in_features:
        return None
    assert isinstance(of.norm, nn.LayerNorm)
    if any(each.weight.shape[1] != width for each in tables) or of.norm.weight.shape != (width,):
        return None
    widen = None if of.widen is None else matrix_of(of.widen, kernels)
    position, segment = (None if each is None else each.weight for each in (of.position, of.segment))
    return EmbeddingTables(token, widen, position, segment, of.offset, norm_of(of.norm))


def _stored(token: nn.Module) -> MatrixOf:
    """A token table as it is stored."""
    if isinstance(token, nn.Embedding):
        return MatrixOf(None, token.weight, None, None, token.weight.shape[1], len(token.weight))
    assert isinstance(token, Int8Embedding | BinaryEmbedding)
    kind: Kind = "w8a32" if isinstance(token, Int8Embedding) else "w1a32"
    return MatrixOf(kind, token.weight, token.scales, None, token.embedding_dim, len(token.weight))
