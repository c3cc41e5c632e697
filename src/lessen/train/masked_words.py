"""Pre-training by guessing masked words (Devlin et al., 2019, 3.1): plain text in, a start for a task out.

Of the tokens a text is made of, a share is chosen; four in five of these are replaced by [MASK], one in ten
by another word, the rest stay. The loss is that of guessing the chosen ones. Guesses are made by the token
table itself: what is learned beside it, a dense layer and a bias, is not needed afterwards and not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lessen.data.table import Text
from lessen.errors import InputError
from lessen.model.embeddings import Embeddings
from lessen.model.latent import LatentEmbedding
from lessen.model.linear import Linear
from lessen.model.rows import rows_of_mask
from lessen.model.transformer import Transformer, initialise
from lessen.runtime.text import Encoded, batches, collate
from lessen.train.callbacks import Along
from lessen.train.fine_tuning import EncodedRows, Recipe, steps_of

MASKED, CHANGED = 0.8, 0.1
"""Of the chosen tokens: those that become [MASK], and another word."""

HIDDEN = 1
"""Seed of the masks texts are judged by."""


class Vocabulary:
    """Which tokens may be guessed.

    Args:
        tokenizer: With a mask token.
        size: Rows of the model's token table.

    Attributes:
        mask: Number of [MASK].
        ordinary: Numbers of all tokens that stand for text, `[words]`.
        guessed: Whether a token may be chosen, `[size]`.

    Raises:
        InputError: When the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        if tokenizer is None or tokenizer.mask_token_id is None:
            raise InputError("the model's tokenizer has no mask token, so no word of a text can be masked")
        self.mask: int = tokenizer.mask_token_id
        self.guessed = torch.ones(size, dtype=torch.bool)
        self.guessed[torch.tensor(tokenizer.all_special_ids)] = False
        self.ordinary = self.guessed.nonzero().squeeze(1)
        self.ordinary = self.ordinary[self.ordinary < len(tokenizer)]

    def hide(
        self, ids: Tensor, share: float, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token ids with words hidden, and which were chosen, `[tokens]` each; never a special token."""
        draw = torch.rand(len(ids), generator=generator)
        chosen = (draw < share) & self.guessed[ids]
        fate = torch.rand(len(ids), generator=generator)
        others = self.ordinary[torch.randint(len(self.ordinary), (len(ids),), generator=generator)]
        hidden = torch.where(chosen & (fate < MASKED), torch.tensor(self.mask), ids)
        return torch.where(chosen & (fate >= 1 - CHANGED), others, hidden), chosen


class Guessing(nn.Module):
    """A transformer and what it guesses words with, as the Trainer wants it.

    Args:
        transformer: Trained in place.
        vocabulary: Of its tokenizer.
        share: Of the tokens, chosen in each step.
    """

    def __init__(self, transformer: Transformer, vocabulary: Vocabulary, share: float) -> None:
        super().__init__()
        facts = transformer.architecture
        self.transformer = transformer
        self.vocabulary, self.share = vocabulary, share
        self.dense = Linear(facts.hidden_size, facts.embedding_size)
        self.norm = nn.LayerNorm(facts.embedding_size, eps=facts.norm_eps)
        self.bias = nn.Parameter(torch.zeros(facts.vocab_size))
        initialise(self.dense)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **unused: Any,
    ) -> dict[str, Tensor]:
        """Loss of a padded batch `[rows, tokens]`, in which words are hidden anew each time."""
        index, rows = rows_of_mask(attention_mask)
        ids = input_ids.flatten()[index]
        shown, chosen = (each.to(ids.device) for each in self.vocabulary.hide(ids.cpu(), self.share))
        states = self.transformer(shown, rows)[0][chosen]
        if not len(states):  # a batch of a few short texts
            return {"loss": states.sum() + 0.0 * self.bias.sum()}
        return {"loss": functional.cross_entropy(self.guesses(states).float(), ids[chosen])}

    def guesses(self, states: Tensor) -> Tensor:
        """Logits of all words, `[chosen, vocabulary]`, for states `[chosen, hidden]`."""
        made = self.norm(functional.gelu(self.dense(states)))
        return functional.linear(made, _table(self.transformer.embeddings), self.bias)


def learn_words(
    model: Any,
    encoded: Sequence[Encoded],
    recipe: Recipe,
    share: float,
    folder: Path,
    *,
    told: Callable[[float], None] | None = None,
    quiet: bool = False,
) -> tuple[dict[str, Any], Guessing]:
    """Train `model` in place to guess words, continuing from the newest checkpoint in `folder`.

    Args:
        model: An encoder with a tokenizer.
        encoded: Texts, as `pieces` makes them.
        recipe: How to train.
        share: Of the tokens, chosen in each step.
        folder: Where checkpoints go; they hold the whole training, heads too.
        told: As in `fine_tune`.
        quiet: No progress bar.

    Returns:
        The record of `fine_tune`, and what guesses.

    Raises:
        InputError: When the tokenizer has no mask token.
        Diverged: When the loss is no finite number, or a weight in the end.
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    torch.manual_seed(recipe.seed)
    vocabulary = Vocabulary(model.tokenizer, model.config.facts().vocab_size)
    guessing = Guessing(model.transformer, vocabulary, share)
    rows = EncodedRows(encoded, None)
    record = steps_of(guessing, model.transformer, rows, recipe, folder, Along(told), quiet=quiet)
    guessing.eval()
    return record, guessing


@torch.inference_mode()
def guessed(guessing: Guessing, encoded: Sequence[Encoded], batch_size: int = 64) -> dict[str, float]:
    """How well hidden words of texts are guessed, always the same ones.

    Returns:
        `loss` (nats a word), `accuracy`, and the number of `words`.
    """
    generator = torch.Generator().manual_seed(HIDDEN)
    loss, right, words = 0.0, 0, 0
    for batch in batches(encoded, batch_size):
        ids, rows, _ = collate([encoded[i] for i in batch], torch.device("cpu"))
        shown, chosen = guessing.vocabulary.hide(ids, guessing.share, generator)
        if not chosen.any():
            continue
        logits = guessing.guesses(guessing.transformer(shown, rows)[0][chosen])
        loss += float(functional.cross_entropy(logits, ids[chosen], reduction="sum"))
        right += int((logits.argmax(1) == ids[chosen]).sum())
        words += int(chosen.sum())
    return {"loss": loss / max(1, words), "accuracy": right / max(1, words), "words": words}


def pieces(tokenizer: Any, texts: Sequence[Text], max_tokens: int) -> list[Encoded]:
    """Texts cut into pieces of at most so many tokens, special ones included; nothing is left out.

    Of a pair each text stands alone.
    """
    single = [part for text in texts for part in ([text] if isinstance(text, str) else text)]
    cut = tokenizer(
        single,
        truncation=True,
        max_length=max_tokens,
        return_overflowing_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return [Encoded(ids, None, False) for ids in cut["input_ids"]]


def _table(embeddings: Embeddings) -> Tensor:
    """The token table as it is used, `[vocabulary, width]`."""
    token = embeddings.token
    whole = token.whole() if isinstance(token, LatentEmbedding) else token.weight
    return whole if embeddings.widen is None else embeddings.widen(whole)
