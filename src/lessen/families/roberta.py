"""RoBERTa and XLM-RoBERTa: BERT with positions counted from the padding id, and one segment."""

from dataclasses import replace

from lessen.families import bert

FAMILY = replace(
    bert.FAMILY,
    model_types=("roberta", "xlm-roberta"),
    prefix="roberta",
    facts={"counts_from_pad": True},
    head={"dense": "classifier.dense", "output": "classifier.out_proj"},
)
