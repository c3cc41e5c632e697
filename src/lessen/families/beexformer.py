"""BEExformer's own encoder (its page, 1.5 and 1.9), to be trained from scratch: no checkpoint is public.

All sizes are ours; the paper's are unknown.
"""

from __future__ import annotations

import string
from typing import Literal

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from lessen.model.architecture import Architecture

CHARACTERS = "beexformer-test"
"""The preset that reads characters, and so needs no vocabulary from elsewhere."""

WORDS = 30_522
"""Of BERT's uncased vocabulary, which the other presets use."""


SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""What transformers calls them, and how they are written; in the order of their numbers."""


def _preset(
    hidden: int,
    heads: int,
    inner: int,
    layers: int,
    words: int = WORDS,
    tokens: int = 128,
    *,
    shared: bool = False,
    form: Literal["slfn", "slfn_lstm", "ffn"] = "slfn",
) -> Architecture:
    return Architecture(
        family="beexformer",
        vocab_size=words,
        hidden_size=hidden,
        embedding_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=inner,
        max_position_embeddings=tokens,
        norm_eps=1e-6,
        feed_forward=form,
        shared_layers=shared,
        attention_dropout=0.0,
    )


PRESETS: dict[str, Architecture] = {
    CHARACTERS: _preset(64, 2, 32, 4, words=1_000, tokens=64),
    "beexformer-small": _preset(256, 4, 256, 6),
    "beexformer-shared": _preset(256, 4, 256, 6, shared=True),
    "beexformer-medium": _preset(512, 8, 512, 6),
    "beexformer-base": _preset(768, 12, 768, 12),
    "beexformer-small-lstm": _preset(256, 4, 256, 6, form="slfn_lstm"),
    "beexformer-small-ffn": _preset(256, 4, 512, 6, form="ffn"),
}
"""As in the page's table; without attention dropout, as our recipes train all models. Of
`beexformer-shared` all layers are one block, as in the author's earlier network (page, 1.6); the last two are
the other reading of SLFN, and two plain matrices with as many weights in its place."""


def characters() -> Tokenizer:
    """A tokenizer that knows the characters of ASCII, in words; everything else is unknown to it."""
    letters = sorted(set(string.printable.lower()) - set(string.whitespace))
    names = [*SPECIAL.values(), *letters, *(f"##{letter}" for letter in letters)]
    model = WordPiece({name: place for place, name in enumerate(names)}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer
