"""Train a small GPT-2 from nothing on film reviews, and let tokens of its prompts leave.

It learns to continue IMDB's reviews word by word, with all tokens. Then it goes on with reviews of which the
first `PROMPT` tokens are a prompt that loses as many as a speed-up drawn anew for each step takes, and the
loss is that of the `FOLLOWS` tokens after it. No pre-trained weights are used: figures are those of a small
model that has read three million words once. In the end the loss of what follows is measured at several
speed-ups of reading, with tokens chosen by attention, at random, and by place alone.

    python examples/gpt2_from_scratch.py --out gpt2-small-reviews
    python examples/gpt2_from_scratch.py --out try --rows 200    # a short one; learns nothing
    lessen generate gpt2-small-reviews "the best film i have"

Stopped, it goes on where it was when the same command is run again; unfinished work is in `OUT.work`.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from t5_from_scratch import at, begin, learned_tokenizer, positive
from transformers import GPT2Config, GPT2LMHeadModel

import lessen
from lessen.data.packaged import load as builtin
from lessen.errors import Interrupted
from lessen.runtime.answers import score_own
from lessen.runtime.retention import alpha_for
from lessen.tokens.passes import drawn
from lessen.train.fine_tuning import Recipe
from lessen.train.lessons import Lesson, learn_to_answer

PROMPT, FOLLOWS = 192, 64
"""Tokens of a prompt, and of what follows it and is judged."""

SIZES = {"n_embd": 192, "n_layer": 6, "n_head": 6, "n_positions": PROMPT + FOLLOWS}

SHORTEST = 32
"""Tokens of a review to learn from, at least."""

RATE, BATCH = 1e-3, 16
"""Peak of the learning rate, and reviews of a step; while tokens leave, a tenth of the rate."""

AGAIN = 2000
"""Reviews learned from with tokens leaving, of those that are long enough."""

PROFILED, TESTED = 100, 500
"""Reviews whose attention the retention profile is measured on, and reviews that are judged; at most."""

BOLDEST = 3.72
SPEEDUPS = (1.0, 1.5, 2.0, 3.0, 3.72)
SCORES = ("window", "random", "last_k")


def main() -> None:
    """Train, save, evaluate, and save the figures."""
    options = _options()
    out, work = options.out, options.out.with_name(f"{options.out.name}.work")
    try:
        begin(out, work, {key: value for key, value in vars(options).items() if key != "out"})
        if not (out / "config.json").exists():
            model = trained(options.seed, work, options.rows)
            again(model, options.seed, work, options.rows).save_pretrained(out)
        _evaluate(lessen.load(out), out, options.rows)
    except (lessen.LessenError, Interrupted) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command to continue")
    shutil.rmtree(work)


def _evaluate(model: Any, out: Path, rows: int | None) -> None:
    """Print the figures as they come, and save them."""
    texts, figures = long_reviews(model, "test", min(rows or TESTED, TESTED)), []
    for score in SCORES:
        for speedup in SPEEDUPS if score == SCORES[0] else SPEEDUPS[1:]:
            each = nats(model, texts, at(model, score, speedup))
            figures.append({"score": score, "speedup": speedup, "nats": mean(each), "texts": len(each)})
            print(f"{speedup:.2f}x {score:8} perplexity {math.exp(mean(each)):.1f}", flush=True)
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


def nats(model: Any, texts: list[list[int]], point: lessen.Point) -> list[float]:
    """Of each text, the loss of a token after its prompt."""
    prompts, follow = [ids[:PROMPT] for ids in texts], [ids[PROMPT:] for ids in texts]
    return [-float(row.mean()) for row in score_own(model.transformer, prompts, follow, point)]


def trained(seed: int, work: Path, rows: int | None = None) -> lessen.LessenForCausalLM:
    """A GPT-2 that has read reviews, each once, with a retention profile.

    Args:
        seed: Of the first weights and the order of rows.
        work: Where checkpoints go; a run that was stopped goes on from there.
        rows: Reviews to read; all if None.
    """
    torch.manual_seed(seed)
    model = fresh()
    texts = [ids for ids in reviews(model, "train") if len(ids) >= SHORTEST][:rows]
    lessons = [Lesson(ids[:1], ids[1:]) for ids in texts]
    recipe = Recipe(epochs=1.0, batch_size=BATCH, learning_rate=RATE, seed=seed)
    learn_to_answer(model, lessons, recipe, work / "reading")
    return profiled(model)


def profiled(model: lessen.LessenForCausalLM) -> lessen.LessenForCausalLM:
    """The model with a retention profile measured on prompts of its own kind."""
    assert model.tokenizer is not None
    prompts = [model.tokenizer.decode(ids[:PROMPT]) for ids in long_reviews(model, "train", PROFILED)]
    return model.measure_profile(prompts, max_tokens=PROMPT)


def again(
    model: lessen.LessenForCausalLM, seed: int, work: Path, rows: int | None = None, *, leaving: bool = True
) -> lessen.LessenForCausalLM:
    """The same model after more reviews, whose prompts lose tokens; or of which all stay, for comparison.

    Args:
        model: As `trained` returns it; changed.
        seed: Of the order of rows and the speed-ups.
        work: As in `trained`.
        rows: Reviews at most.
        leaving: Whether prompt tokens leave.
    """
    lessons = [
        Lesson(ids[:PROMPT], ids[PROMPT:]) for ids in long_reviews(model, "train", min(rows or AGAIN, AGAIN))
    ]
    inner, profile, passes = model.transformer, model.config.retention_profile(), None
    assert profile is not None
    torch.manual_seed(seed)
    if leaving:
        passes = drawn(profile, alpha_for(inner, profile, BOLDEST), inner.shape, inner.architecture)
    recipe = Recipe(epochs=1.0, batch_size=BATCH, learning_rate=RATE / 10, seed=seed)
    learn_to_answer(model, lessons, recipe, work / ("leaving" if leaving else "all"), passes=passes)
    return model


def fresh() -> lessen.LessenForCausalLM:
    """GPT-2's own first weights, and the tokenizer of the small T5, whose texts these are too."""
    tokenizer = learned_tokenizer()
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    config = GPT2Config(**SIZES, **ends, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    with tempfile.TemporaryDirectory() as folder:
        GPT2LMHeadModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model = lessen.load(folder)
    assert isinstance(model, lessen.LessenForCausalLM)
    model.folder = None
    return model


def reviews(model: Any, part: str) -> list[list[int]]:
    """Tokens of each review, as many as the model has positions for; in an order drawn once."""
    texts = builtin("imdb-reviews", part).texts
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()
    encoded = model.tokenizer(
        [texts[row] for row in order], truncation=True, max_length=PROMPT + FOLLOWS, verbose=False
    )
    return list(encoded["input_ids"])


def long_reviews(model: Any, part: str, rows: int) -> list[list[int]]:
    """So many of those that are long enough to be cut."""
    return [ids for ids in reviews(model, part) if len(ids) == PROMPT + FOLLOWS][:rows]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=positive, help="reviews; as many as it takes if not given")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
