"""ELECTRA (Clark et al. 2020): BERT with embeddings narrower than the layers, and a GELU head."""

from dataclasses import replace

from lessen.families import bert

FAMILY = replace(
    bert.FAMILY,
    model_types=("electra",),
    prefix="electra",
    sizes={**bert.FAMILY.sizes, "embedding_size": "embedding_size"},
    stem={**bert.FAMILY.stem, "embeddings.project": "embeddings_project"},
    head={"dense": "classifier.dense", "output": "classifier.out_proj"},
    head_activation="gelu",
)
