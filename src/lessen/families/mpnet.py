"""MPNet (Song et al. 2020): learned positions plus one relative bias shared by all layers."""

from lessen.families.family import BERT_PARTS, Family

FAMILY = Family(
    model_types=("mpnet",),
    prefix="mpnet",
    sizes={"relative_buckets": "relative_attention_num_buckets"},
    facts={"position": "learned+relative", "counts_from_pad": True},
    stem={
        "embeddings.token": "embeddings.word_embeddings",
        "embeddings.position": "embeddings.position_embeddings",
        "embeddings.norm": "embeddings.LayerNorm",
        "relative_bias": "encoder.relative_attention_bias",
    },
    layer="encoder.layer.{i}",
    parts={
        **BERT_PARTS,
        "attention.qkv": ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        "attention.output": "attention.attn.o",
        "attention_norm": "attention.LayerNorm",
    },
    head={"dense": "classifier.dense", "output": "classifier.out_proj"},
)
