"""The shell around an encoder-decoder model: the loss of training, and transformers' `generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from lessen.config import LessenConfig
from lessen.errors import PlanError
from lessen.hf.generator import LessenGenerator, whole_mask
from lessen.hf.padded import PaddedMemory, PaddedSource, Padding
from lessen.hf.shell import refuse_ignored
from lessen.model.causal import Memory
from lessen.model.cross import Source
from lessen.model.rows import Rows, following, rows_of_mask, scatter
from lessen.runtime.source import encoded

LEFT_OUT = -100
"""A label that is compared with nothing."""


@dataclass
class PaddedStates(BaseModelOutput):
    """What an encoder returns: `last_hidden_state` `[batch, length, hidden]`, zero where there is no token.

    Where tokens left, the others stand side by side, and `length` is that of the row with most of them.

    Attributes:
        attention_mask: Which places hold a token, `[batch, length]`. It goes before the mask of the input: a
            decoder reads nothing else.
    """

    attention_mask: Tensor | None = None


class PaddedEncoder:
    """The encoder as transformers' `generate` calls it.

    Args:
        model: Whose; tokens leave as its Point says.
    """

    main_input_name = "input_ids"

    def __init__(self, model: LessenForSeq2SeqLM) -> None:
        self.model = model

    def __call__(self, **inputs: Any) -> PaddedStates:
        return self.forward(**inputs)

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **further: Any
    ) -> PaddedStates:
        """Padded ids `[batch, length]` to what is left of them.

        Raises:
            InputError: When a row has more tokens than the model takes.
            PlanError: Without ids, or for an input there is not.
        """
        if input_ids is None:
            raise PlanError("an encoder reads input_ids; vectors (inputs_embeds) it does not take")
        refuse_ignored(further)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        index, rows = rows_of_mask(mask)
        self.model.check_lengths(rows)
        hidden, left = self.model.encode(input_ids.flatten()[index], rows)
        if left.kept is not None:
            states, stays = left.restore(left.pad(hidden)), left.restore(left.real)
            return PaddedStates(last_hidden_state=states, attention_mask=stays.to(mask.dtype))
        shape = (input_ids.shape[0], input_ids.shape[1])
        stays = torch.zeros_like(mask).flatten().index_fill(0, index, 1).view(shape)
        return PaddedStates(last_hidden_state=scatter(hidden, index, shape), attention_mask=stays)


class LessenForSeq2SeqLM(LessenGenerator):
    """A generator that answers: a decoder writes what it makes of the encoder's output (T5).

    Where the Point says so, tokens leave in the encoder, and the decoder reads those that are left.
    """

    def __init__(self, config: LessenConfig) -> None:
        super().__init__(config)
        if self.transformer.decoder is None:
            raise PlanError("config.json: architecture.num_decoder_layers is 0; this model has no decoder")
        if self.generation_config.decoder_start_token_id is None:
            self.generation_config.decoder_start_token_id = config.facts().decoder_start_token_id

    def get_encoder(self, modality: str | None = None) -> PaddedEncoder:
        """What reads the input, for transformers' `generate`."""
        return PaddedEncoder(self)

    def encode(self, ids: Tensor, rows: Rows) -> Source:
        """Run the encoder on a ragged batch, in which tokens leave as the Point says."""
        return encoded(self.transformer, ids, rows, self._point)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Labels `[batch, length]` moved on by one place: what the decoder has seen when it names each."""
        facts = self.config.facts()
        moved = labels.roll(1, 1)
        moved[:, 0] = facts.decoder_start_token_id
        return moved.masked_fill(moved == LEFT_OUT, facts.pad_token_id)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool = True,
        **further: Any,
    ) -> Seq2SeqLMOutput | tuple[Any, ...]:
        """Padded ids of both sides to logits `[batch, length, vocabulary]`, zero at padding.

        Padding may stand on either side. With labels and nothing else, the decoder's input is made from
        them, and what follows a row's last label is not computed.

        Args:
            input_ids: The encoder's, `[batch, source length]`; not asked for with `encoder_outputs`.
            attention_mask: Nonzero at their tokens, `[batch, source length]`.
            decoder_input_ids: `[batch, length]`; made from `labels` if None.
            decoder_attention_mask: Nonzero at their tokens, `[batch, before + length]` if a cache holds what
                came before.
            encoder_outputs: What the encoder returned before.
            past_key_values: A cache of transformers; it grows by the decoder's tokens.
            labels: `[batch, length]`, each compared with the logits at its own place; -100 is left out.
            use_cache: Whether to begin a cache if none is given.
            return_dict: A tuple if not.
            further: `num_items_in_batch` of a Trainer, and what changes no answer.

        Raises:
            InputError: When a row has more tokens than the model takes.
            PlanError: For a cache of a fixed form, for an input there is not, when one side's tokens are
                missing, or when a mask is not that of the encoder's output.
        """
        _check(past_key_values)
        refuse_ignored(further)
        if decoder_input_ids is None:
            if labels is None:
                raise PlanError("an encoder-decoder model needs decoder_input_ids or labels")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            if decoder_attention_mask is None:
                decoder_attention_mask = _up_to_the_last(labels)
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        before = 0 if past_key_values is None else past_key_values.get_seq_length()
        mask = whole_mask(decoder_input_ids, decoder_attention_mask, before)
        index, rows = rows_of_mask(mask[:, before:])
        if before:
            rows = following(rows, mask[:, :before].sum(1).tolist())
        self.check_lengths(rows)
        source = self._source(input_ids, attention_mask, encoder_outputs)
        padding = Padding(mask, index, decoder_input_ids.shape[1])
        memory = self._memory(past_key_values, padding, source)
        hidden, _ = self.transformer.write(
            decoder_input_ids.flatten()[index],
            rows,
            memory=memory,
            source=source.ragged if memory is None else None,
        )
        shape = (decoder_input_ids.shape[0], decoder_input_ids.shape[1])
        logits = scatter(self.transformer.next_token(hidden), index, shape)
        loss = None
        if labels is not None:
            loss = _loss(logits, labels, further.get("num_items_in_batch"))
        if return_dict:
            return Seq2SeqLMOutput(
                loss=loss,
                logits=logits,
                past_key_values=past_key_values,
                encoder_last_hidden_state=source.states,
            )
        parts = (loss, logits, past_key_values, source.states)
        return tuple(part for part in parts if part is not None)

    def _source(
        self,
        ids: Tensor | None,
        mask: Tensor | None,
        outputs: BaseModelOutput | tuple[Tensor, ...] | None,
    ) -> PaddedSource:
        """What the decoder reads."""
        if outputs is None:
            if ids is None:
                raise PlanError("an encoder-decoder model needs input_ids or encoder_outputs")
            outputs = self.get_encoder()(input_ids=ids, attention_mask=mask)
        states = outputs[0]
        stays = getattr(outputs, "attention_mask", None)
        stays = mask if stays is None else stays
        stays = torch.ones(states.shape[:2], device=states.device) if stays is None else stays
        if stays.shape != states.shape[:2]:
            raise PlanError(
                f"attention_mask is {list(stays.shape)}, and encoder_outputs are {list(states.shape[:2])}: "
                "where tokens left, give what the encoder returned, or the attention_mask in it"
            )
        return PaddedSource(states, stays)

    def _memory(
        self, cache: EncoderDecoderCache | None, padding: Padding, source: PaddedSource
    ) -> list[Memory] | None:
        if cache is None:
            return None
        assert self.transformer.decoder is not None
        crosses = self.transformer.decoder.cross_attentions
        for layer, cross in enumerate(crosses):
            source.fill(cache, layer, cross)
        held, read = cache.self_attention_cache, cache.cross_attention_cache
        return [PaddedMemory(held, layer, padding, source.of(read, layer)) for layer in range(len(crosses))]

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *rest: Any, **options: Any
    ) -> None:
        """transformers' own has as many layers as the encoder; one that grows has those of the decoder."""
        plain = generation_config.use_cache is not False and generation_config.cache_implementation is None
        if plain and not isinstance(model_kwargs.get("past_key_values"), Cache):
            model_kwargs["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache())
        else:
            super()._prepare_cache_for_generation(generation_config, model_kwargs, *rest, **options)


def _check(cache: Any) -> None:
    """Refuse a cache that does not grow with what is written."""
    if cache is None:
        return
    if not isinstance(cache, EncoderDecoderCache):
        raise PlanError("past_key_values of an encoder-decoder model is an EncoderDecoderCache")
    if cache.is_compileable:
        raise PlanError("a cache of a fixed size cannot be used; leave cache_implementation away")


def _up_to_the_last(labels: Tensor) -> Tensor:
    """Which places are needed to name all labels, `[batch, length]` bool; of an empty row the first."""
    needed = (labels != LEFT_OUT).flip(1).cummax(1).values.flip(1)
    needed[:, 0] = True
    return needed


def _loss(logits: Tensor, labels: Tensor, items: Tensor | int | None) -> Tensor:
    """Mean over labels; over `items` where a batch is one of several that make a step."""
    how = "mean" if items is None else "sum"
    loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=LEFT_OUT, reduction=how)
    return loss if items is None else loss / items
