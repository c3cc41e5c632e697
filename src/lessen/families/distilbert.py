"""DistilBERT (Sanh et al. 2019): BERT without segments, half as deep."""

from lessen.families.family import Family

FAMILY = Family(
    model_types=("distilbert",),
    prefix="distilbert",
    sizes={
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
    },
    facts={"norm_eps": 1e-12},
    stem={
        "embeddings.token": "embeddings.word_embeddings",
        "embeddings.position": "embeddings.position_embeddings",
        "embeddings.norm": "embeddings.LayerNorm",
    },
    layer="transformer.layer.{i}",
    parts={
        "attention.qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.output": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "feed_forward.up": "ffn.lin1",
        "feed_forward.down": "ffn.lin2",
        "feed_forward_norm": "output_layer_norm",
    },
    head={"dense": "pre_classifier", "output": "classifier"},
    head_activation="relu",
)
