"""What the layers begin with: tables of tokens, positions and segments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lessen.model.architecture import Architecture
from lessen.model.dropout import Dropout
from lessen.model.few_bits import BinaryEmbedding, Int8Embedding
from lessen.model.linear import Linear
from lessen.model.matrices import table
from lessen.model.norms import norm, norm_of
from lessen.model.prepared import Prepared, matrix_of
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
            IndexError: When a table has no row for a token.
        """
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
        if self.training or not isinstance(self.norm, nn.LayerNorm) or rows.kept is not None:
            return None
        kernels = native_for(self.norm.weight)
        if kernels is None:
            return None
        if self._tables is None:
            parts = (self.token, self.widen, self.position, self.segment, self.norm)
            kinds = (nn.Embedding, BinaryEmbedding, Linear, nn.LayerNorm)
            self._tables = Prepared(self._made, [self], [each for each in parts if each is not None], kinds)
        tables = self._tables.ready(kernels)
        return None if tables is None else kernels.embedded(tables, ids, rows.lengths, segments)

    def _made(self, kernels: Native) -> EmbeddingTables:
        token = self.token
        kind: Kind = None
        if not isinstance(token, nn.Embedding):
            kind = "w8a32" if isinstance(token, Int8Embedding) else "w1a32"
        scales = None if isinstance(token, nn.Embedding) else token.scales
        stored = MatrixOf(kind, token.weight, scales, None, token.embedding_dim, token.num_embeddings)
        position, segment = (None if each is None else each.weight for each in (self.position, self.segment))
        widen = None if self.widen is None else matrix_of(self.widen, kernels)
        assert self.norm is not None
        return EmbeddingTables(stored, widen, position, segment, self.offset, norm_of(self.norm))
