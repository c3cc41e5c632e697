"""Tokens on their way through the layers: each goes as far as it has to, and what waits follows later.

The layers are cut where an exit may let tokens leave. A token that leaves waits there, with the states it
left with; when a later token of its text goes on, all that wait go with it, as one causal run of neighbouring
positions, in one reading of the weights. So each layer gets the keys and values full depth would have given
it, in order, only later. At any time, of every text, and for two stretches of layers that follow one another:

    tokens the first has run for = tokens the second has run for + tokens that wait between them

(Self-supervised exits page, 1.7: exact deferred KV.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lessen.depth.language import Decision, decide
from lessen.model.block import Block
from lessen.model.causal import CausalAttention
from lessen.model.rotary import Turns, rotation
from lessen.model.rows import Rows
from lessen.model.stack import InLayer, run_layers
from lessen.model.stretch import Stretch
from lessen.model.transformer import Transformer
from lessen.runtime.cache import KeyValueCache
from lessen.runtime.decoding import Decoding
from lessen.runtime.tally import Tally


@dataclass(frozen=True)
class Early:
    """What an exit named.

    Attributes:
        layer: Layers run (1-based).
        rows: Of whom: those that left.
        decision: Of the exit.
    """

    layer: int
    rows: tuple[int, ...]
    decision: Decision

    def by_row(self) -> Iterator[tuple[int, Tensor]]:
        """Each row with its logits, `[1, vocabulary]`."""
        return zip(self.rows, self.decision.logits.split(1), strict=True)


@dataclass(frozen=True)
class Answer:
    """What the model itself named, after its last layer.

    Attributes:
        layer: Its layers.
        rows: Of whom.
        counts: For how many of the last tokens of each row.
        logits: `[tokens, vocabulary]`, float32 or wider, row after row.
    """

    layer: int
    rows: tuple[int, ...]
    counts: tuple[int, ...]
    logits: Tensor

    def by_row(self) -> Iterator[tuple[int, Tensor]]:
        """Each row with its logits, `[its count, vocabulary]`."""
        return zip(self.rows, self.logits.split(self.counts), strict=True)


class Waterfall:
    """The layers, cut at exits, with what waits at each.

    Args:
        model: Causal, in evaluation mode.
        cache: Of the batch; rows are named as there.
        decoding: Which exits are asked, and what skipped layers remember.
        stop: Tokens that are never named early.
        tally: Counts what runs.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KeyValueCache,
        decoding: Decoding,
        stop: Collection[int],
        tally: Tally,
    ) -> None:
        self.model, self.writer = model, model.writer
        self.cache, self.stop, self.tally = cache, stop, tally
        self.rule = None if decoding.mode == "off" else decoding.rule
        self.exact = decoding.kv == "exact"
        self.thinned = False  # whether prompts lost tokens, so that layers hold fewer than came before
        exits = [] if self.rule is None else model.shape.exit_layers
        asked = [layer for layer in exits if self.rule and self.rule.at(layer) is not None]
        self.stretches = [range(*ends) for ends in pairwise([0, *asked, self.writer.depth])]
        rotary = self.writer.architecture.rotary
        turns = None if rotary is None else Turns(rotary)
        self.runs = {layers: Stretch(self.writer, layers, turns) for layers in self.stretches}
        self.waiting: list[dict[int, list[Tensor]]] = [{} for _ in self.stretches]
        self.began: dict[int, int] = {}  # tokens of a row before the first one named

    def step(
        self,
        tokens: Mapping[int, Sequence[int]],
        whole: Collection[int],
        wanted: Mapping[int, int],
        in_layer: InLayer | None = None,
    ) -> list[Early | Answer]:
        """Run more tokens of some rows, each row's last one as far as it has to go.

        Args:
            tokens: By row.
            whole: Rows that go through all layers, with no exit asked.
            wanted: For how many of a row's last tokens its logits are wanted, if it goes through all layers;
                1 where nothing is said.
            in_layer: What takes tokens away on the way; then all rows are to be `whole`.

        Returns:
            Each row once.
        """
        self.tally.steps += 1
        hidden, rows = self._entered(tokens)
        for row, full in zip(rows.original, rows.full_lengths, strict=True):
            self.began.setdefault(row, full)
        answers: list[Early | Answer] = []
        for number, layers in enumerate(self.stretches):
            if number:
                hidden, rows = self._joined(number, hidden, rows)
            hidden, rows = self._through(layers, hidden, rows, in_layer)
            if number + 1 < len(self.stretches):
                answer, stay = self._decided(layers.stop, hidden, rows, whole)
                if answer is not None:
                    answers.append(answer)
                    hidden, rows = self._parted(number + 1, hidden, rows, stay)
                    if not len(rows):
                        return answers
        return [*answers, self._last(hidden, rows, wanted)]

    def read(self, tokens: Mapping[int, Sequence[int]]) -> None:
        """Run tokens of some rows through all layers and name nothing."""
        if tokens:
            self._through(range(self.writer.depth), *self._entered(tokens))

    def _entered(self, tokens: Mapping[int, Sequence[int]]) -> tuple[Tensor, Rows]:
        rows = self.cache.layout({row: len(ids) for row, ids in tokens.items()})
        ids = torch.tensor([id for row in rows.original for id in tokens[row]], device=rows.device)
        return self.model.embeddings(ids, rows), rows

    def _through(
        self, layers: range, hidden: Tensor, rows: Rows, in_layer: InLayer | None = None
    ) -> tuple[Tensor, Rows]:
        self.tally.layer_reads += len(layers)
        given, memory = rows, self.cache.memory
        run = self.runs.get(layers) if in_layer is None else None
        together = None if run is None else run.run(hidden, rows, memory)
        if together is None:
            hidden, rows = run_layers(self.writer, hidden, rows, None, in_layer, memory, layers)
        else:
            hidden = together
        self.thinned |= in_layer is not None
        for row, length, full in zip(given.original, given.lengths, given.full_lengths, strict=True):
            gone = [self.cache.layers[layer].gone[row] for layer in layers] if self.thinned else ()
            self.tally.ran(layers, row, full - length, length, gone)
        return hidden, rows

    def _decided(
        self, layer: int, hidden: Tensor, rows: Rows, whole: Collection[int]
    ) -> tuple[Early | None, list[bool]]:
        """What those that leave after a layer say, if any do; and for each row whether it goes on."""
        places = [place for place, row in enumerate(rows.original) if row not in whole]
        stay = [True] * len(rows)
        if not places:
            return None, stay
        last = hidden if rows.tokens == len(rows) else hidden.index_select(0, rows.last)
        if len(places) < len(rows):
            last = last[places]
        ends = [rows.full_lengths[place] - self.began[rows.original[place]] for place in places]
        found = decide(self.model, layer, last, self.rule, self.stop, ends)
        if found is None:
            return None, stay
        leaves, passed = found.leaves.tolist(), found.unsure.isfinite().tolist()
        for place, left, through in zip(places, leaves, passed, strict=True):
            stay[place] = not left
            self.tally.asked(layer, rows.original[place], passed=through)
        early = tuple(row for row, stays in zip(rows.original, stay, strict=True) if not stays)
        return (Early(layer, early, found) if early else None), stay

    def _parted(self, number: int, hidden: Tensor, rows: Rows, stay: list[bool]) -> tuple[Tensor, Rows]:
        """Rows that go on; what skipped layers will remember of the others is kept, or made at once."""
        left = [not stays for stays in stay]
        if self.exact:
            for row, states, gone in zip(rows.original, hidden.split(rows.lengths), left, strict=True):
                if gone:
                    self.waiting[number].setdefault(row, []).append(states)
        else:
            self._propagate(self.stretches[number].start, rows.gather(hidden, left), rows.select(left))
        return rows.gather(hidden, stay), rows.select(stay)

    def _joined(self, number: int, hidden: Tensor, rows: Rows) -> tuple[Tensor, Rows]:
        """States that enter a stretch, behind those of their rows that waited before it."""
        queues = self.waiting[number]
        if not any(row in queues for row in rows.original):
            return hidden, rows
        parts = {
            row: torch.cat([*queues.pop(row, ()), states])
            for row, states in zip(rows.original, hidden.split(rows.lengths), strict=True)
        }
        layer = self.stretches[number].start
        rows = self.cache.layout({row: len(states) for row, states in parts.items()}, layer)
        return torch.cat([parts[row] for row in rows.original]), rows

    def _propagate(self, start: int, hidden: Tensor, rows: Rows) -> None:
        """Let all layers from `start` on remember states as if they were their own inputs (CALM)."""
        layers = range(start, self.writer.depth)
        facts, turning = self.writer.architecture, None
        if facts.rotary is not None:
            turning = rotation(facts.rotary, rows.positions, hidden.dtype)
        for place in layers:
            block = self.writer.layers[min(place, len(self.writer.layers) - 1)]
            assert isinstance(block, Block)
            assert isinstance(block.attention, CausalAttention)
            given = block.attention_norm(hidden) if block.pre else hidden
            block.attention.remember(given, rows, turning, self.cache.layers[place])
        for row in rows.original:
            self.tally.skipped(layers, row)

    def _last(self, hidden: Tensor, rows: Rows, wanted: Mapping[int, int]) -> Answer:
        """What the language head says of the last tokens of each row."""
        counts = tuple(wanted.get(row, 1) for row in rows.original)
        if counts != rows.lengths:
            parts = zip(hidden.split(rows.lengths), counts, strict=True)
            hidden = torch.cat([states[len(states) - count :] for states, count in parts])
        for row, count in zip(rows.original, counts, strict=True):
            self.tally.named(row, count)
        return Answer(self.writer.depth, rows.original, counts, self.model.next_token(hidden))
