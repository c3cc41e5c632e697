"""The options of `lessen compress`, under the headings its help shows them by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lessen.cli.output import DATA, GENERATORS
from lessen.plan import Rates
from lessen.records import MOST_SEED

SMALLER = "Smaller layers (cost-eff, layer-chop)"
TOKENS = "Tokens that leave (latency-adjustable)"
BITS = "Binary weights (beexformer, binarize, masked-words)"
EXITS = "Exits"
TRAINING = "Training"

Model = Annotated[str | None, typer.Argument(help="Hub name, local folder, or builtin:NAME.")]
Data = Annotated[str | None, typer.Option(help="CSV, TSV, JSONL or Parquet file, builtin:NAME, hub dataset.")]
Out = Annotated[Path, typer.Option(help="Folder for the result.")]
System = Annotated[
    str,
    typer.Option(
        help="early-exit, pabee, deebert, self-exit, latency-adjustable, cost-eff, layer-chop, "
        "beexformer, binarize or masked-words."
    ),
]
Plan = Annotated[Path | None, typer.Option(help="Replay a saved plan.json; no other option applies.")]
Params = Annotated[
    str | None,
    typer.Option(
        help="Weights to keep in all, such as 3M, or 1/8 of those there are; 1/2,1/4,1/8 makes a "
        "model of each size, in OUT/1of2 and so on.",
        rich_help_panel=SMALLER,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        help="Size of model.safetensors in 32 bits, such as 12MB, or several.", rich_help_panel=SMALLER
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(help="layer-chop: layers to keep, such as 3, or several.", rich_help_panel=SMALLER),
]
Importance = Annotated[
    str | None,
    typer.Option(
        help="What the parts to remove are chosen by. cost-eff: abs_weight, signed_group, magnitude "
        "or random [abs_weight]; layer-chop: loss, deepest or random [loss].",
        rich_help_panel=SMALLER,
    ),
]
Rank = Annotated[
    float | None,
    typer.Option(
        help="cost-eff: matrices become products of this share of their rank, such as 0.5, where that "
        "is smaller.",
        rich_help_panel=SMALLER,
    ),
]
LastExitOnly = Annotated[
    bool,
    typer.Option(
        "--last-exit-only", help="cost-eff: score by the last exit, not by all.", rich_help_panel=SMALLER
    ),
]
Uneven = Annotated[
    bool,
    typer.Option("--uneven", help="cost-eff: layers may keep different widths.", rich_help_panel=SMALLER),
]
Speedup = Annotated[
    float | None,
    typer.Option(
        help="Ratio of MACs trained for. [4.8, of what writes 3.72, or what shares given to --retention come "
        "to]",
        rich_help_panel=TOKENS,
    ),
]
RatesName = Annotated[
    Rates | None,
    typer.Option(
        help="Train at that ratio only (one), at one drawn below it in each step (drawn), or at "
        "several in each step, which takes four times as long (sandwich). [drawn]",
        rich_help_panel=TOKENS,
    ),
]
Retention = Annotated[
    str | None,
    typer.Option(
        help="How retention falls with depth: acc or envelope (measured), geometric, tilt, or a share "
        "for each layer, such as 0.9,0.7,0.4, which --speedup rescales. "
        "[acc; envelope of what only looks back]",
        rich_help_panel=TOKENS,
    ),
]
TokenScore = Annotated[
    str | None,
    typer.Option(
        help="What tokens that stay are chosen by. [mean, which is ACC; window of what only looks back]",
        rich_help_panel=TOKENS,
    ),
]
WeightBits = Annotated[
    int | None, typer.Option(help="1, or 32 to train the same model as it is. [1]", rich_help_panel=BITS)
]
ActivationBits = Annotated[
    int | None,
    typer.Option(
        help="Bits of what binary weights multiply: 32, 8 or 1. [32, or as it was before]",
        rich_help_panel=BITS,
    ),
]
BinaryLayers = Annotated[
    str | None,
    typer.Option(
        help="Layers whose matrices become binary, such as 1,2,4; else all, or those of before.",
        rich_help_panel=BITS,
    ),
]
FloatEmbedding = Annotated[
    bool,
    typer.Option(
        "--float-embedding",
        help="The token table stays in 32 bits.",
        rich_help_panel=BITS,
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(
        help="What signs are multiplied by: row_mean, tensor_mean, learned or none. [row_mean]",
        rich_help_panel=BITS,
    ),
]
Gradient = Annotated[
    str | None,
    typer.Option(
        help="The surrogate signs learn by: poly, poly_unscaled, ste or ste_clip. [poly]",
        rich_help_panel=BITS,
    ),
]
Gradual = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=0.99,
        help="Share of the steps in which weights turn from real to binary. [0]",
        rich_help_panel=BITS,
    ),
]
Alone = Annotated[
    bool,
    typer.Option(
        "--alone", help="binarize: binary weights learn from labels, without a teacher.", rich_help_panel=BITS
    ),
]
Exits = Annotated[
    str | None, typer.Option(help="Layers with an exit, such as 2,4,6; else all.", rich_help_panel=EXITS)
]
Pool = Annotated[
    str | None, typer.Option(help="What a new exit reads: cls or mean. [mean]", rich_help_panel=EXITS)
]
ExitHidden = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Width of a dense layer in each new exit. [32 in beexformer, else none]",
        rich_help_panel=EXITS,
    ),
]
Criterion = Annotated[
    list[str] | None, typer.Option(help="Exit criteria to choose from; repeatable.", rich_help_panel=EXITS)
]
Head = Annotated[
    str | None,
    typer.Option(
        help="What names a token at an exit: full, tied, gate, shortlist or shared. [tied; shortlist where "
        "the matrix to the vocabulary costs several layers]",
        rich_help_panel=GENERATORS,
    ),
]
HeadRank = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Of an exit's correction of hidden states. [256, at most half the width]",
        rich_help_panel=GENERATORS,
    ),
]
Words = Annotated[
    int | None,
    typer.Option(min=2, help="Tokens that a shortlist head can name. [4096]", rich_help_panel=GENERATORS),
]
FreshHeads = Annotated[
    bool, typer.Option("--fresh-heads", help="Exits start from drawn weights.", rich_help_panel=GENERATORS)
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Steps of training. [1000]", rich_help_panel=GENERATORS)
]
TimeLimit = Annotated[
    str | None, typer.Option(help="Training ends within this time, such as 15m.", rich_help_panel=GENERATORS)
]
Penalty = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=0.99, help="Entropy's weight in --objective penalized. [0.5]", rich_help_panel=GENERATORS
    ),
]
PromptTokens = Annotated[
    int, typer.Option(min=1, help="Beginning of a document that is continued.", rich_help_panel=GENERATORS)
]
NewTokens = Annotated[int, typer.Option(min=1, help="Length of a continuation.", rich_help_panel=GENERATORS)]
Prompts = Annotated[
    int | None,
    typer.Option(
        min=20,
        help="Most prompts to tune, calibrate and test on. [300, 500, 500]",
        rich_help_panel=GENERATORS,
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(
        help="latency-adjustable: rows with labels put into words: sentiment, question, yes-no, paraphrase, "
        "score, similarity, first-sentence (several ways each), or a text with {text}; the model learns to "
        "write the answer, the number or the sentence.",
        rich_help_panel=GENERATORS,
    ),
]
Answers = Annotated[
    str | None,
    typer.Option(
        help="With --prompt: an answer for each label, such as no,yes for 0 and 1, or "
        "fresh=positive,rotten=negative.",
        rich_help_panel=GENERATORS,
    ),
]
ExitsOnly = Annotated[
    bool,
    typer.Option(
        "--exits-only", help="Save exits without the model they belong to.", rich_help_panel=GENERATORS
    ),
]
TuneData = Annotated[
    str | None,
    typer.Option(help="Rows to make exit rules from; else a part of --data.", rich_help_panel=DATA),
]
CalibrationData = Annotated[
    str | None, typer.Option(help="Rows to test promises on; else a part of --data.", rich_help_panel=DATA)
]
TestData = Annotated[
    str | None, typer.Option(help="Rows for the final figures; else a part of --data.", rich_help_panel=DATA)
]
SelectionShare = Annotated[
    float | None,
    typer.Option(
        help="Share of --data to select the best step of a training on, by the mean over exits, such as 0.1; "
        "else its last step is the result.",
        rich_help_panel=DATA,
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(help="Training objective; the system's own if not given.", rich_help_panel=TRAINING),
]
Epochs = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Passes over the training rows; of the first stage, others in proportion. 0, for a model that "
        "writes with latency-adjustable: only how its attention falls is measured.",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Rows per training step.", rich_help_panel=TRAINING)
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        help="Peak learning rate; of the first stage, others in proportion.", rich_help_panel=TRAINING
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(min=2, help="Texts are cut to this for training. [128]", rich_help_panel=TRAINING),
]
WordDropout = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=0.99, help="Share of the tokens left out in a training step.", rich_help_panel=TRAINING
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=MOST_SEED,
        help="Of the split, the order of rows and new weights.",
        rich_help_panel=TRAINING,
    ),
]
