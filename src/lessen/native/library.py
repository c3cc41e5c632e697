"""The kernels, called on torch tensors."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lessen.errors import PlanError
from lessen.native.decoder import DecoderLayer, LastNorm, Room
from lessen.native.embeddings import EmbeddingTables
from lessen.native.head import Head
from lessen.native.layer import Bias, EncoderLayer, Heads, LayerRest
from lessen.native.products import Products


class Native(Products):
    """The kernels; one object for a process.

    Attributes:
        isa: Instruction set in use, such as `avx512` or `amx`.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(library)
        self.isa: str = library.lessen_isa().decode()
        self._attention = library.lessen_attention_f32
        self._layer_rest = library.lessen_layer_rest
        self._embed = library.lessen_embed
        self._encoder_layers = library.lessen_encoder_layers
        self._decoder_layers = library.lessen_decoder_layers
        self._outcomes = library.lessen_outcomes
        self._lead = library.lessen_lead
        self._likeliest = library.lessen_likeliest

    def likeliest(self, logits: Tensor) -> list[int]:
        """The first of the largest numbers of each row, as `logits.argmax(-1).tolist()`; -1 at a NaN.

        Args:
            logits: `[rows, columns]`, float32 on the CPU.
        """
        logits = logits.contiguous()
        found = (ctypes.c_int64 * len(logits))()
        self._likeliest(logits.data_ptr(), found, *logits.shape)
        return list(found)

    def outcomes(self, head: Head, hidden: Tensor) -> Tensor:
        """Logits of what an exit chooses from.

        Args:
            head: Made ready.
            hidden: States between layers, `[tokens, hidden]`, float32 or bfloat16 on the CPU.

        Returns:
            `[tokens, outcomes]`, float32.
        """
        given = hidden.float().contiguous()
        result = given.new_empty(len(given), head.outcomes)
        self._outcomes(head.place, given.data_ptr(), result.data_ptr(), len(given), self._threads())
        return result

    def lead(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """How far the largest number of each row is ahead: `model.lead.Lead`.

        Args:
            logits: `[rows, columns]`, float32 on the CPU.
        """
        logits = logits.contiguous()
        rows, columns = logits.shape
        place = torch.empty(rows, dtype=torch.long)
        second, rest, moment = (logits.new_empty(rows) for _ in range(3))
        found = place, second, rest, moment
        self._lead(logits.data_ptr(), *(part.data_ptr() for part in found), rows, columns)
        return found

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        lengths: Sequence[int],
        *,
        causal: bool = False,
        stretch: float = 1.0,
        bias: Bias | None = None,
        listened: int = 0,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of rows of different lengths, each to itself.

        Args:
            query: `[tokens, heads, head_dim]`, float32 on the CPU.
            key: `[tokens, key heads, head_dim]`, each shared by as many neighbouring query heads.
            value: The same.
            lengths: Tokens of each row.
            causal: Whether a token sees none after it.
            stretch: Queries are multiplied by it, before scores are divided by sqrt(head_dim).
            bias: Of scores.
            listened: Count what each token gets of so many last queries of its row, mean over heads and them;
                0: count nothing.

        Returns:
            Context `[tokens, heads, head_dim]`, and `[tokens]` if asked for.
        """
        query, key, value = (_steady(each) for each in (query, key, value))
        if key.stride(0) != value.stride(0):
            key, value = key.contiguous(), value.contiguous()
        tokens, heads, dim = query.shape
        context = query.new_empty(tokens, heads, dim)
        gets = query.new_empty(tokens) if listened else None
        of = Heads(
            query.data_ptr(),
            key.data_ptr(),
            value.data_ptr(),
            query.stride(0),
            key.stride(0),
            heads,
            key.shape[1],
            dim,
            causal,
            stretch / math.sqrt(dim),
        )
        self._attention(
            ctypes.addressof(of),
            (ctypes.c_int64 * len(lengths))(*lengths),
            len(lengths),
            None if bias is None else bias.place,
            context.data_ptr(),
            None if gets is None else gets.data_ptr(),
            listened,
            self._threads(),
        )
        return context, gets

    def embedded(
        self, tables: EmbeddingTables, ids: Tensor, lengths: Sequence[int], segments: Tensor | None
    ) -> Tensor:
        """Rows of tables, summed and normed.

        Args:
            tables: Made ready.
            ids: `[tokens]`, int64 on the CPU.
            lengths: Tokens of each row.
            segments: `[tokens]`, the same; None: all 0.

        Returns:
            `[tokens, width]`, float32.

        Raises:
            IndexError: When a table has no row for a token.
        """
        ids = ids.contiguous()
        segments = None if segments is None else segments.contiguous()
        result = torch.empty(len(ids), tables.width, dtype=torch.float32, device="cpu")
        self._embed(
            tables.place,
            ids.data_ptr(),
            None if segments is None else segments.data_ptr(),
            (ctypes.c_int64 * len(lengths))(*lengths),
            len(lengths),
            result.data_ptr(),
            self._threads(),
        )
        return result

    def layer_rest(self, rest: LayerRest, context: Tensor, hidden: Tensor) -> Tensor:
        """A layer from the output of its attention on: both sums with their norms, and feed-forward.

        Args:
            rest: The layer.
            context: `[tokens, heads * head_dim]`, float32 on the CPU.
            hidden: What the layer was given, `[tokens, hidden]`, the same.

        Returns:
            `[tokens, hidden]`.
        """
        context, hidden = context.contiguous(), hidden.contiguous()
        result = torch.empty_like(hidden)
        self._layer_rest(
            rest.place,
            context.data_ptr(),
            hidden.data_ptr(),
            result.data_ptr(),
            len(hidden),
            self._threads(),
        )
        return result

    def encoder_layers(
        self,
        layers: Sequence[EncoderLayer],
        hidden: Tensor,
        lengths: Sequence[int],
        bias: Bias | None = None,
    ) -> Tensor:
        """Whole layers of an encoder, one after another.

        Args:
            layers: Made ready, in order.
            hidden: `[tokens, hidden]`, float32 on the CPU.
            lengths: Tokens of each row.
            bias: Of their scores, if there is one.

        Returns:
            `[tokens, hidden]`.
        """
        hidden = hidden.contiguous()
        result = torch.empty_like(hidden)
        self._encoder_layers(
            (ctypes.c_void_p * len(layers))(*[layer.place for layer in layers]),
            len(layers),
            None if bias is None else bias.place,
            hidden.data_ptr(),
            (ctypes.c_int64 * len(lengths))(*lengths),
            len(lengths),
            result.data_ptr(),
            self._threads(),
        )
        return result

    def decoder_layers(
        self,
        layers: Sequence[DecoderLayer],
        rooms: Sequence[Room],
        turning: tuple[Tensor, Tensor] | None,
        hidden: Tensor,
        last: LastNorm | None = None,
        bias: Bias | None = None,
    ) -> Tensor:
        """Layers of a decoder for a few new tokens, whose keys and values they write into the cache.

        Args:
            layers: Made ready, in order.
            rooms: Of each layer, where the tokens go.
            turning: Cosine and sine of each, `[tokens, 1, turned]`, if positions are rotary.
            hidden: `[tokens, hidden]`, float32 or bfloat16 on the CPU; computed in float32 either way, and
                rounded to its type after each layer.
            last: The norm after them, of the kind of theirs, if there is one.
            bias: Of their scores, if there is one; tokens of a row follow one another.

        Returns:
            `[tokens, hidden]`, of the same type.

        Raises:
            PlanError: When a layer reads a source and its room has none.
        """
        if any(layer.reads and room.sources is None for layer, room in zip(layers, rooms, strict=True)):
            raise PlanError("the cache knows no encoder's output for this layer to read")
        given = hidden.float().contiguous()
        result = torch.empty_like(given)
        places = ctypes.c_void_p * len(layers)
        turns = [] if turning is None else [part.float() for part in turning]
        cosine, sine = [part.data_ptr() for part in turns] or (None, None)
        self._decoder_layers(
            places(*[layer.place for layer in layers]),
            places(*[room.place for room in rooms]),
            len(layers),
            None if last is None else last.place,
            cosine,
            sine,
            None if bias is None else bias.place,
            given.data_ptr(),
            result.data_ptr(),
            len(given),
            hidden.dtype != torch.float32,
            self._threads(),
        )
        return result.to(hidden.dtype)


def _steady(heads: Tensor) -> Tensor:
    """`[tokens, heads, head_dim]`, the heads of a token one after the other."""
    dim = heads.shape[2]
    return heads if heads.stride(2) == 1 and heads.stride(1) == dim else heads.contiguous()
