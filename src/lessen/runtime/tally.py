"""What generating took, counted as it ran: weights read, MACs, where tokens were named, drafts kept.

A weight pass is one reading of the matrices of all layers; layers that ran for several tokens of a text at
once were read once. MACs are those of `model/macs.py`; of a prompt only its last token counts, which is the
first to name a new one. (`docs/measuring.md`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lessen.model.macs import language_head_macs, layer_macs, matrix_macs, skipped_layer_macs
from lessen.model.transformer import Transformer


@dataclass
class TextTally:
    """What one text of a batch took.

    Attributes:
        layers: For each token given out, how many layers it went through before it was named; in mode `spec`
            before it was drafted.
        layer_weights: Read in layers, each time they ran for this text.
        weights: Read in all: layers, exits, and the matrix to the vocabulary.
        macs: Of all tokens but those of the prompt before its last.
        drafts: For each verified draft, how long it was, and how much of it was kept.
    """

    layers: list[int] = field(default_factory=list)
    layer_weights: int = 0
    weights: int = 0
    macs: int = 0
    drafts: list[tuple[int, int]] = field(default_factory=list)


class Tally:
    """What texts took, in one call of `runtime.generation.generate` or several of the same model.

    Attributes:
        texts: In the order of the prompts; those of a further call come after those of the one before.
        steps: Of the loop, each of them for all texts that went on.
        layer_reads: Layers run, each step once for all texts.
    """

    costs: Costs

    def __init__(self) -> None:
        self.texts: list[TextTally] = []
        self.steps = 0
        self.layer_reads = 0

    def begin(self, model: Transformer, prompts: Sequence[int], sources: Sequence[int] | None = None) -> None:
        """Make ready for texts; rows are counted from the first of them.

        Args:
            model: What writes them.
            prompts: Tokens of each that are there before the first is named.
            sources: Tokens of an encoder's output each is written from; None: there is no encoder.
        """
        self.costs = Costs(model)
        self.texts = [*self.texts, *(TextTally() for _ in prompts)]
        self._rows = self.texts[len(self.texts) - len(prompts) :]
        self._first = [length - 1 for length in prompts]
        self._sources = [0] * len(prompts) if sources is None else sources

    @classmethod
    def together(cls, tallies: Sequence[Tally]) -> Tally:
        """What several runs of one model took."""
        whole = cls()
        for tally in tallies:
            whole.costs = tally.costs
            whole.texts += tally.texts
            whole.steps += tally.steps
            whole.layer_reads += tally.layer_reads
        return whole

    def of(self, row: int) -> TextTally:
        """What a row of the last call took."""
        return self._rows[row]

    def ran(self, layers: range, row: int, position: int, tokens: int, gone: Sequence[int] = ()) -> None:
        """Layers ran for tokens of a row.

        Args:
            layers: Which (0-based).
            row: Of the batch.
            position: Of the first of the tokens.
            tokens: How many.
            gone: For each of the layers, how many earlier tokens it does not hold; all are held if empty.
        """
        text, before = self._rows[row], max(position, self._first[row])
        new = max(0, position + tokens - before)
        each, pair = self.costs.of_layers(layers)
        text.layer_weights += each
        text.weights += each
        text.macs += new * each + pair * (new * before + new * (new + 1) // 2)
        if self._sources[row]:
            text.macs += new * self._sources[row] * self.costs.across_source(layers)
        for layer, missing in zip(layers, gone, strict=False):
            text.macs -= new * missing * self.costs.pair[layer]

    def skipped(self, layers: range, row: int) -> None:
        """Layers made keys and values of one token's state, and nothing else."""
        cost = self.costs.of_skipped(layers)
        text = self._rows[row]
        text.layer_weights += cost
        text.weights += cost
        text.macs += cost

    def asked(self, layer: int, row: int, *, passed: bool) -> None:
        """An exit was asked about one token: whether its probe let it pass."""
        head = self.costs.heads[layer]
        cost = head.always + passed * head.passing
        self._rows[row].weights += cost
        self._rows[row].macs += cost

    def named(self, row: int, tokens: int) -> None:
        """The language head named what comes after so many tokens of a row."""
        self._rows[row].weights += self.costs.vocabulary
        self._rows[row].macs += tokens * self.costs.vocabulary

    @property
    def tokens(self) -> int:
        """Given out, of all texts."""
        return sum(len(text.layers) for text in self.texts)

    @property
    def weight_passes(self) -> float:
        """Readings of all layers' weights for each token, as if each text were alone."""
        read = sum(text.layer_weights for text in self.texts)
        return read / self.costs.all_layers / max(1, self.tokens)

    @property
    def weights_per_token(self) -> float:
        """Weights read for each token: layers, exits, and the matrix to the vocabulary."""
        return sum(text.weights for text in self.texts) / max(1, self.tokens)

    @property
    def macs_per_token(self) -> float:
        """MACs of each token."""
        return sum(text.macs for text in self.texts) / max(1, self.tokens)

    @property
    def mean_layers(self) -> float:
        """Layers a token went through before it was named, on average."""
        return sum(sum(text.layers) for text in self.texts) / max(1, self.tokens)

    @property
    def acceptance(self) -> float | None:
        """Share of drafted tokens that were kept; None where none were drafted."""
        drafted = sum(length for text in self.texts for length, _ in text.drafts)
        return sum(kept for text in self.texts for _, kept in text.drafts) / drafted if drafted else None

    @property
    def draft_length(self) -> float | None:
        """Tokens of a draft, on average; None where none were drafted."""
        lengths = [length for text in self.texts for length, _ in text.drafts]
        return sum(lengths) / len(lengths) if lengths else None


class Costs:
    """MACs of the parts of a model for one token, which are also their weights.

    Args:
        model: With or without language exits.
    """

    def __init__(self, model: Transformer) -> None:
        facts, shape = model.architecture, model.shape
        self._known: dict[range, tuple[int, int]] = {}
        writes, layers = facts.decoder or facts, shape.decoder_layers or shape.layers
        inner = [len(layer.heads) * writes.head_dim for layer in layers]
        self.source = [2 * width if facts.decoder else 0 for width in inner]
        self.alone = [
            layer_macs(writes, layer, 1) + facts.hidden_size * source
            for layer, source in zip(layers, self.source, strict=True)
        ]
        self.pair = [2 * width for width in inner]
        self.skipped = [skipped_layer_macs(writes, layer) for layer in layers]
        self.heads = {exit.layer: language_head_macs(facts, exit) for exit in shape.language_exits}
        self.vocabulary = matrix_macs(facts.hidden_size, facts.vocab_size)
        self.all_layers, _ = self.of_layers(range(len(self.alone)))

    def of_layers(self, layers: range) -> tuple[int, int]:
        """Of the matrices of some layers for a token; and for each token it attends to, itself included."""
        if layers not in self._known:
            pair = sum(self.pair[layer] for layer in layers)
            self._known[layers] = sum(self.alone[layer] for layer in layers) - pair, pair
        return self._known[layers]

    def across_source(self, layers: range) -> int:
        """Of attention to one token of an encoder's output, for each token that is written."""
        return sum(self.source[layer] for layer in layers)

    def of_skipped(self, layers: range) -> int:
        """Of the keys and values of a token that left before these layers."""
        return sum(self.skipped[layer] for layer in layers)
