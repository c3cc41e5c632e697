"""The shell around a causal language model: the loss of training, and transformers' `generate`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from transformers import Cache, GenerationMixin
from transformers.cache_utils import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from lessen.config import LessenConfig
from lessen.depth.language import language_criterion
from lessen.errors import InputError, LessenWarning, PlanError
from lessen.hf.padded import PaddedMemory, Padding, check_positions
from lessen.hf.pointed import LessenPointedModel
from lessen.hf.shell import refuse_ignored, tokenizer_of
from lessen.model.causal import Memory
from lessen.model.rows import Rows, following, rows_of_mask, scatter
from lessen.plan import Point
from lessen.runtime.completion import Completion, Prompt, complete, stream
from lessen.runtime.decoding import Decoding, KeyValues, Mode, check_exits
from lessen.runtime.dial import check_wish
from lessen.runtime.latency_model import LatencyModel, ms_cost, read_latency
from lessen.runtime.retention import point_within
from lessen.runtime.sampling import Sampling


class LessenGenerator(LessenPointedModel, GenerationMixin):
    """What writes text in our own loop, whether it continues its prompt or answers it.

    `generate` and what else transformers does with its cache keep keys and values padded. Our own loop, which
    does not, is faster.
    """

    def __init__(self, config: LessenConfig) -> None:
        super().__init__(config)
        if config.facts().language_head is None:
            raise PlanError("config.json: architecture.language_head is missing; this model cannot generate")

    def get_output_embeddings(self) -> torch.nn.Module:
        """The matrix to the vocabulary; the token table if they are one."""
        return self.transformer.language_head or self.transformer.embeddings.token

    def dial(
        self,
        *,
        speedup: float | None = None,
        latency_ms: float | None = None,
        tokens: int | None = None,
        max_drop: float | None = None,
    ) -> Self:
        """Let tokens of the prompt leave on the way; returns the model.

        It needs a retention profile (`measure_profile`), and is for our own loop (`generate_text`,
        `stream_text`); of an encoder-decoder model, whose encoder reads the prompt, for all that reads it.

        Args:
            speedup: MACs of reading a prompt with all its tokens over those with as many as are left, on
                prompts of the lengths the profile was measured on. Tokens that are written stay; what they
                read gets less in the layers above.
            latency_ms: In place of it, milliseconds to the first token after a prompt alone in its batch, as
                fitted on this machine (`lessen bench --fit`) for the threads and the precision used now.
            tokens: For `latency_ms`: length of the prompt; the longest of those the profile was measured on
                if None.
            max_drop: For models that classify; refused here.

        Raises:
            PlanError: When it cannot be reached, is not exactly one wish, no retention profile was measured,
                or no latencies were fitted.
        """
        if max_drop is not None:
            raise PlanError(
                "max_drop: of a generator nothing is promised when prompts lose tokens; give speedup or "
                "latency_ms (how often early tokens agree, a Point says: lessen calibrate --target-agreement)"
            )
        if (speedup is None) == (latency_ms is None):
            raise PlanError("dial takes one of speedup and latency_ms")
        if tokens is not None and (latency_ms is None or tokens < 1):
            raise PlanError(f"tokens {tokens}: the length of a prompt, 1 or more, for latency_ms only")
        if speedup is not None:
            return self.use(self.point_at(speedup))
        wanted = check_wish("latency_ms", latency_ms)
        profile, fits = self.config.retention_profile(), self._latencies()
        if profile is None or fits is None:
            missing = "retention profile" if profile is None else "latencies fitted"
            how = "call measure_profile(texts)" if profile is None else "run lessen bench --fit on its folder"
            raise PlanError(f"the model has no {missing}; {how} first")
        cost = ms_cost(self.transformer, fits.fit_for(torch.get_num_threads(), self.precision, 1))
        length = tokens or profile.lengths[-1]
        return self.use(point_within(self.transformer, profile, wanted, length, cost))

    def _latencies(self) -> LatencyModel | None:
        return None if self.folder is None else read_latency(self.folder)

    def generate_text(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        mode: Mode = "off",
        point: str | Point | None = None,
        kv: KeyValues = "exact",
    ) -> list[Completion]:
        """Continue prompts in our own loop, in one ragged batch.

        Args:
            prompts: Texts, or their token ids.
            max_new_tokens: For each at most.
            temperature: 0 takes the likeliest token.
            top_k: Draw from so many of the likeliest tokens only.
            top_p: Draw from the likeliest tokens that together have this probability only.
            seed: Row i draws by `seed + i`.
            mode: `off`: all layers for every token, whatever the Point. `direct`: tokens leave early; `spec`:
                exits draft and the other layers verify. More in `decoding`.
            point: At which tokens leave, or its name; the current one if None.
            kv: In mode `direct`, `exact` or `propagate` keys and values of skipped layers.

        Raises:
            InputError: For a prompt that is empty or too long, or options that make no sense together.
            PlanError: When there is no tokenizer, no exit for the mode, or no such Point.
        """
        sampling = Sampling(temperature, top_k, top_p, seed)
        return complete(
            self.eval().transformer,
            tokenizer_of(self),
            prompts,
            max_new_tokens=max_new_tokens,
            stop=self.stop_tokens,
            sampling=sampling,
            decoding=self.decoding(mode, point, kv),
        )

    def stream_text(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        mode: Mode = "off",
        point: str | Point | None = None,
        kv: KeyValues = "exact",
    ) -> Iterator[str]:
        """Continue one prompt and give out its text piece by piece; arguments as in `generate_text`."""
        sampling = Sampling(temperature, top_k, top_p, seed)
        pieces = stream(
            self.eval().transformer,
            tokenizer_of(self),
            prompt,
            max_new_tokens=max_new_tokens,
            stop=self.stop_tokens,
            sampling=sampling,
            decoding=self.decoding(mode, point, kv),
        )
        return (text for _, text in pieces if text)

    def _judges(self) -> str:
        return "language"

    def decoding(
        self, mode: Mode = "off", point: str | Point | None = None, kv: KeyValues = "exact"
    ) -> Decoding:
        """How to decode, as `runtime.generation.generate` takes it.

        Args:
            mode: `off`: all layers for every token. `direct`: a token is what the first sure exit names,
                which is not always the model's own; the Point says how far it may be trusted. `spec`: exits
                draft, the layers left over verify, and the text is that of `off`.
            point: A Point, or the name of one. If None, drafts are made as was found to pay on tuning prompts
                (`config.drafts`), and for all else the current Point holds. One that says nothing of
                prompts lets them lose tokens as the current Point does.
            kv: In mode `direct`, what skipped layers remember: `exact`, which Points are certified for, or
                `propagate`, which costs fewer MACs and of which nothing is promised.

        Raises:
            InputError: When these do not go together, or no token leaves at the Point.
            PlanError: When there are no exits, no such Point, or its criterion cannot judge a next token.
        """
        check_exits(self.config.form(), mode)
        if mode == "off" and point is not None:
            raise InputError("mode off asks no exit; leave the Point away, or use mode direct or spec")
        chosen = self._point if point is None else self._fitting(point)
        prompts = self._point if chosen.retention is None else chosen
        if mode == "spec" and point is None and (drafts := self.config.drafting()) is not None:
            language_criterion(drafts.rule.criterion)
            return Decoding(mode, drafts.rule, kv, drafts.most, prompts=prompts)
        if mode in ("direct", "spec") and chosen.exits is None:
            others = [name for name, each in self.config.choices().items() if each.exits is not None]
            has = (
                f"this model has {', '.join(others)}" if others else "calibrate the model, or give thresholds"
            )
            raise InputError(f"mode {mode}: no token leaves early at point {chosen.name!r}; {has}")
        if chosen.exits is not None:
            language_criterion(chosen.exits.criterion)
        return Decoding(mode, None if mode == "off" else chosen.exits, kv, prompts=prompts)

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Tokens after which a text has ended."""
        ends = self.generation_config.eos_token_id
        if ends is None and self.tokenizer is not None:
            ends = self.tokenizer.eos_token_id
        return frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)

    def check_lengths(self, rows: Rows) -> None:
        """Refuse rows that are too long.

        Raises:
            InputError: When one has more tokens than the model has positions.
        """
        longest, most = max(rows.full_lengths), self.config.facts().max_tokens
        if longest > most:
            raise InputError(f"a row of {longest} tokens is longer than the model's {most} positions")


class LessenForCausalLM(LessenGenerator):
    """A generator that continues its prompt: logits of the next token, the loss of language modelling."""

    def generate(self, *args: Any, **options: Any) -> Any:
        """transformers' own loop, which reads prompts whole: its cache has one length for all layers."""
        if self._point.retention is not None:
            warnings.warn(
                f"point {self._point.name!r}: transformers' generate reads prompts whole; tokens leave in "
                "generate_text and stream_text",
                LessenWarning,
                stacklevel=2,
            )
        return super().generate(*args, **options)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        position_ids: Tensor | None = None,
        return_dict: bool = True,
        **further: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Padded ids `[batch, length]` to logits `[batch, length, vocabulary]`, zero at padding.

        Padding may stand on either side; positions count from each row's first token.

        Args:
            input_ids: `[batch, length]`.
            attention_mask: Nonzero at tokens, `[batch, before + length]` if a cache holds what came before.
            past_key_values: A cache of transformers; it grows by these tokens.
            labels: `[batch, length]`, of which each is compared with the logits before it; -100 is left out.
            use_cache: Whether to begin a cache if none is given.
            logits_to_keep: Compute the logits of so many last places only, or of these places; 0: of all.
            position_ids: `[batch, length]`, which must be those that follow from the mask.
            return_dict: A tuple if not.
            further: `num_items_in_batch` of a Trainer, and what changes no answer.

        Raises:
            InputError: When a row has more tokens than the model has positions.
            PlanError: For a mask or a cache of a fixed form, which cannot be ragged, for other positions, and
                for an input there is not.
        """
        refuse_ignored(further)
        if past_key_values is not None and past_key_values.is_compileable:
            raise PlanError("a cache of a fixed size cannot be used; leave cache_implementation away")
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        before = 0 if past_key_values is None else past_key_values.get_seq_length()
        mask = whole_mask(input_ids, attention_mask, before)
        check_positions(position_ids, mask, before)
        index, rows = rows_of_mask(mask[:, before:])
        if before:
            rows = following(rows, mask[:, :before].sum(1).tolist())
        self.check_lengths(rows)
        padding = Padding(mask, index, input_ids.shape[1])
        hidden, _ = self.transformer(
            input_ids.flatten()[index], rows, memory=self._memory(past_key_values, padding)
        )
        logits = self._logits(hidden, padding, logits_to_keep)
        loss = None
        if labels is not None:
            count = further.get("num_items_in_batch")
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch=count)
        if return_dict:
            return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)
        return tuple(part for part in (loss, logits, past_key_values) if part is not None)

    def _memory(self, cache: Cache | None, padding: Padding) -> list[Memory] | None:
        if cache is None:
            return None
        return [PaddedMemory(cache, layer, padding) for layer in range(len(self.transformer.layers))]

    def _logits(self, hidden: Tensor, padding: Padding, keep: int | Tensor) -> Tensor:
        shape = (len(padding.mask), padding.length)
        if isinstance(keep, int) and keep == 0:
            return scatter(self.transformer.next_token(hidden), padding.index, shape)
        wanted = slice(-keep, None) if isinstance(keep, int) else keep
        kept = scatter(hidden, padding.index, shape)[:, wanted]
        return self.transformer.next_token(kept.flatten(0, 1)).unflatten(0, kept.shape[:2])


def whole_mask(ids: Tensor, mask: Tensor | None, before: int) -> Tensor:
    """Which places hold a token, those before included, `[batch, before + length]`, bool."""
    shape = (ids.shape[0], before + ids.shape[1])
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=ids.device)
    if mask.dim() != 2:
        raise PlanError("attention_mask must be [batch, length], nonzero at tokens")
    if mask.shape != shape:
        raise PlanError(
            f"attention_mask is {list(mask.shape)}; with {before} places cached it is {list(shape)}"
        )
    return mask.bool()
