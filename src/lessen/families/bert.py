"""BERT (Devlin et al. 2019): learned positions, two segments, post-norm."""

from lessen.families.family import BERT_PARTS, Family

FAMILY = Family(
    model_types=("bert",),
    prefix="bert",
    sizes={"type_vocab_size": "type_vocab_size"},
    stem={
        "embeddings.token": "embeddings.word_embeddings",
        "embeddings.position": "embeddings.position_embeddings",
        "embeddings.segment": "embeddings.token_type_embeddings",
        "embeddings.norm": "embeddings.LayerNorm",
    },
    layer="encoder.layer.{i}",
    parts=BERT_PARTS,
    head={"dense": "{prefix}pooler.dense", "output": "classifier"},
)
