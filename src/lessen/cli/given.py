"""Which options a kind of run takes, of `lessen compress` first: one that would say nothing is refused."""

from __future__ import annotations

from collections.abc import Collection

import typer

from lessen.errors import InputError

ALL = {"model", "data", "out", "overwrite", "as_json", "system", "seed", "test_data", "text_column"}
ROWS = {"pair_column", "label_column", "task"}
TRAINING = {"batch_size", "learning_rate"}
PROMISE = {"max_drop", "confidence", "loss", "rule", "tune_data", "calibration_data", "criterion", "exits"}
TOKENS = {"speedup", "rates", "retention", "token_score"}
CONTINUED = {"prompt_tokens", "new_tokens"}

CLASSIFIES = {
    *(ALL | ROWS | TRAINING | PROMISE | TOKENS),
    *("selection_share", "objective", "epochs", "max_tokens", "word_dropout", "pool", "exit_hidden"),
    *("params", "size", "layers", "importance", "rank", "last_exit_only", "uneven"),
    *("weight_bits", "activation_bits", "binary_layers", "float_embedding", "scale", "gradient", "gradual"),
    "alone",
}
"""Of a run on a model that classifies."""

GENERATES = {
    *(ALL | TRAINING | PROMISE | CONTINUED),
    *("objective", "max_tokens", "head", "head_rank", "words", "fresh_heads", "steps", "time_limit"),
    *("penalty", "target_agreement", "block", "prompts", "exits_only", "one_threshold", "decay"),
}
"""Of exits that learn a generator's own next tokens."""

READS = ALL | ROWS | TRAINING | TOKENS | CONTINUED | {"epochs", "prompt", "answers"}
"""Of a model that writes, and learns to read less."""

GENERATOR = "does not apply to a model that generates"
NO_GENERATOR = "is for models that generate"
CLASSIFIER_ROWS = {"pair_column", "label_column", "task"}
"""Of commands besides `compress`: what says how to read labelled rows."""

ANSWERED = {"model", "data", "precision", "prompt", "answers", "speedups", "batch_size", "strict", "split"}
ANSWERED |= {"text_column", "as_json"} | CLASSIFIER_ROWS
"""Of `evaluate`, on a model that writes answers."""

DOCUMENTS = {"model", "data", "precision", "point", "prompts", "prompt_tokens", "new_tokens", "text_column"}
DOCUMENTS |= {"as_json"}
"""Of `evaluate`, on a generator that continues documents."""

PREDICTED = {"model", "data", "precision", "point", "speedups", "batch_size", "strict", "split"}
PREDICTED |= {"text_column", "as_json"} | CLASSIFIER_ROWS
"""Of `evaluate`, on a classifier."""

STORED = {"model", "precision", "out", "overwrite", "as_json"}
"""Of `calibrate`, on a model without exits."""

AUDITED = {"model", "data", "reference", "audit", "text_column", "as_json"} | CLASSIFIER_ROWS
"""Of `calibrate --audit`."""

PLANNED = {"plan", "out", "overwrite", "as_json"}
"""Of a run whose plan is in a file."""


def refuse_others(context: typer.Context, taken: Collection[str], why: str) -> None:
    """Refuse an option that was given and is not among those taken.

    Raises:
        InputError: Naming it, and saying `why`.
    """
    for name in given(context):
        if name not in taken:
            raise InputError(f"--{name.replace('_', '-')} {why}")


def refuse_given(context: typer.Context, left: Collection[str], why: str) -> None:
    """Refuse an option that was given and is among those left out; raises as `refuse_others`."""
    refuse_others(context, set(context.params) - set(left), why)


def given(context: typer.Context) -> list[str]:
    """Names of the options that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    # by its name: typer brings a click of its own
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
