"""Train the language exits of a frozen generator on plain text, from its own answers.

The backbone runs in evaluation mode and gets no gradient; it is most of the work, so a pass of it over some
text is followed by many small updates of the exits, each from a few of its tokens drawn without return, in
probabilities over some of the vocabulary. A run may be stopped, and goes on where it was; it may be given a
time, and then ends within it, its learning rate at zero. (Self-supervised exits page, 1.4 and 1.5.)
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from lessen.depth.language import head_after, states_at_exits, tokens_that_count
from lessen.depth.language_losses import (
    LanguageObjective,
    candidates,
    foresight,
    imitation,
    penalized,
    positions_at_once,
)
from lessen.errors import InputError, Interrupted
from lessen.memory import keep_freed_memory
from lessen.model.language_heads import LanguageHead
from lessen.model.linear import multiply
from lessen.model.transformer import Transformer
from lessen.plan import Size
from lessen.progress import Bar
from lessen.records import Seed, Strict
from lessen.runtime.source import Reply, Written, batch_of
from lessen.runtime.text import stretches
from lessen.train.callbacks import StopAtStepEnd
from lessen.train.fine_tuning import bfloat16_pays
from lessen.train.sampler import LengthGrouped
from lessen.train.trainer import check_loss, check_weights

SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""What a run that is killed outright can lose; a signal that can be caught loses nothing."""

CHECKPOINT = "heads.pt"

PERCENT = 100
"""What the progress bar counts, since either steps or seconds may end a run."""


class LanguageRecipe(Strict):
    """How to train language exits; recorded in the artefact.

    Attributes:
        objective: `imitation` (KL, the paper's second version) or `penalized` (its first).
        penalty: Of `penalized`: how much an exit's entropy is rewarded.
        steps: Passes of the backbone over a batch of text.
        time_limit: Seconds after which training ends, whatever steps are left; None: no limit.
        batch_size: Stretches of text in a step.
        update_tokens: Tokens of a step that an update of the optimizer is made from; a step makes as many
            updates as there are such parts of it.
        drawn: Of `imitation`: tokens of the vocabulary that stand for all unlikely ones in an update; see
            `depth.language_losses.candidates`.
        max_tokens: Documents are cut into stretches of this length, or what the model takes; all are used. An
            encoder-decoder model learns from replies instead, whose lengths the plan says.
        learning_rate: Peak, at the first step; falls to zero along a cosine, by steps or seconds, whichever
            are further.
        clip: Largest norm of a step's gradient.
        fresh: Start heads from drawn weights, not from the model's own head.
        seed: Of the order of the text and of new heads.
    """

    objective: LanguageObjective = "imitation"
    penalty: Annotated[float, Field(ge=0, lt=1)] = 0.5
    steps: Size = 1000
    time_limit: Annotated[float, Field(gt=0)] | None = None
    batch_size: Size = 4
    update_tokens: Size = 128
    drawn: Size = 4096
    max_tokens: Annotated[int, Field(ge=2)] = 512
    learning_rate: Annotated[float, Field(gt=0)] = 5e-3
    clip: Annotated[float, Field(gt=0)] = 1.0
    fresh: bool = False
    seed: Seed = 0


def train_exits(
    model: Transformer,
    texts: Sequence[Sequence[int]] | Sequence[Reply],
    recipe: LanguageRecipe,
    folder: Path,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train the language exits of `model` in place, going on from the checkpoint in `folder` if there is one.

    Args:
        model: In float32, with language exits; nothing else of it changes.
        texts: Token ids of each document, or replies of an encoder-decoder model.
        recipe: How to train.
        folder: Where the checkpoint goes.
        quiet: No progress bar.

    Returns:
        `steps`, `seconds`, `tokens` learned from, the mean `loss` of the last tenth of the steps, the
        `precision` of the backbone, whether the run was `resumed`, and whether `steps` or `time` ended it.

    Raises:
        InputError: When there is no text.
        Diverged: When the loss is no finite number, or a weight in the end.
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    keep_freed_memory()
    model.eval()
    longest = min(recipe.max_tokens, model.architecture.max_tokens)
    replies = [text for text in texts if isinstance(text, Reply)]
    plain = [text for text in texts if not isinstance(text, Reply)]
    rows: Sequence[Written] = replies or stretches(plain, longest)
    if not rows:
        raise InputError("there is no text of two tokens or more to train on")
    trained = _only_exits_learn(model)
    if not trained:
        return _nothing_to_learn()
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0.0)
    run = _Run(optimizer)

    def update() -> None:
        nn.utils.clip_grad_norm_(trained, recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    place = folder / CHECKPOINT
    resumed = run.restore(model, place)
    stop, bar = StopAtStepEnd(), Bar("training exits", "percent", quiet=quiet)
    bar.begin(int(PERCENT * run.share(recipe)), PERCENT)
    saved = time.monotonic()
    with stop.on_signals():
        for batch in _batches(rows, recipe, run.step):
            if run.share(recipe) >= 1 or stop.asked:
                break
            began = time.monotonic()
            for group in run.optimizer.param_groups:
                group["lr"] = recipe.learning_rate * (1 + math.cos(math.pi * run.share(recipe))) / 2
            draw = torch.Generator().manual_seed((recipe.seed << 32) + run.step)
            loss, tokens = learn(model, [rows[row] for row in batch], recipe, draw, update)
            check_loss(loss, run.step + 1)
            run.learned(loss, tokens)
            run.seconds += time.monotonic() - began
            bar.note = f"loss {run.losses[-1]:.3f}"
            bar.show(int(PERCENT * min(1.0, run.share(recipe))), PERCENT)
            if time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                run.save(model, place)
                saved = time.monotonic()
    bar.end()
    if stop.asked and run.share(recipe) < 1:
        run.save(model, place)
        raise Interrupted(f"stopped after step {run.step}; run the same command to continue")
    check_weights(trained, run.step)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    last = run.losses[-max(1, len(run.losses) // 10) :]
    return {
        "steps": run.step,
        "seconds": round(run.seconds, 1),
        "tokens": run.tokens,
        "loss": round(sum(last) / len(last), 4),
        "precision": "bfloat16 autocast" if _half(model) else "float32",
        "resumed": resumed,
        "ended_by": "steps" if run.step >= recipe.steps else "time",
    }


def _nothing_to_learn() -> dict[str, Any]:
    """The record of exits that are the model's own head: nothing was trained."""
    return {
        "steps": 0,
        "seconds": 0.0,
        "tokens": 0,
        "loss": None,
        "precision": "float32",
        "resumed": False,
        "ended_by": "steps",
    }


def learn(
    model: Transformer,
    batch: Sequence[Written],
    recipe: LanguageRecipe,
    draw: torch.Generator,
    update: Callable[[], None],
) -> tuple[float, int]:
    """One pass of the backbone, and the updates of the exits made from it.

    Every token counts once, but for the first of each stretch, which has nothing before it to go by. A reply
    has what was read.

    Args:
        model: With language exits.
        batch: Stretches or replies.
        recipe: Says what is minimised, and by how many tokens at once.
        draw: What order and candidates are drawn by, on the CPU.
        update: Called when the gradient of an update stands in the exits: the mean over its tokens and exits.

    Returns:
        The mean loss over tokens and exits, as it was before each update, and the number of tokens.
    """
    device = model.vocabulary_matrix.device
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=_half(model)):
        ids, rows, source = batch_of(model, batch)
        states, last = states_at_exits(model, ids, rows, source)
    counted = tokens_that_count(model, rows)
    counted = counted[torch.randperm(len(counted), generator=draw).to(device)]
    wide = model.vocabulary_matrix.dtype
    matrix = model.vocabulary_matrix.detach().to(torch.bfloat16 if _half(model) else wide)
    total = 0.0
    for tokens in counted.split(recipe.update_tokens):
        whole = len(tokens) * len(states)
        for part in tokens.split(positions_at_once(model.architecture.vocab_size)):
            read = [state[part].to(wide) for state in states]
            total += _gradient(model, read, last[part].to(wide), matrix, recipe, whole, draw) * whole
        update()
    return total / max(1, len(counted) * len(states)), len(counted)


def _gradient(
    model: Transformer,
    states: Sequence[Tensor],
    last: Tensor,
    matrix: Tensor,
    recipe: LanguageRecipe,
    whole: int,
    draw: torch.Generator,
) -> float:
    """Add the gradient of some tokens to the exits.

    Args:
        model: With language exits.
        states: At each exit, `[tokens, hidden]`.
        last: What the language head reads, `[tokens, hidden]`.
        matrix: To the vocabulary, in the type logits are made in.
        recipe: Says what is minimised.
        whole: Tokens times exits of the update.
        draw: What candidates are drawn by.

    Returns:
        Their loss, as a part of the mean.
    """
    objective = imitation if recipe.objective == "imitation" else partial(penalized, penalty=recipe.penalty)
    heads = [head_after(model, layer) for layer in model.shape.exit_layers]
    with torch.no_grad():
        logits = multiply((last * model.architecture.language_head_scale).to(matrix.dtype), matrix)
        # An entropy, which `penalized` rewards, is not that of the candidates.
        unlisted = any(head.elsewhere is None for head in heads)
        some = unlisted and recipe.objective == "imitation"
        chosen = candidates(logits, recipe.drawn, draw) if some else None
        tokens = None if chosen is None else chosen.tokens
        more = 0.0 if chosen is None else chosen.more.to(last.dtype)
        teacher = logits
        if unlisted:
            teacher = (logits if tokens is None else logits[:, tokens]).to(last.dtype) + more
        outcomes = _Outcomes(logits)
    total = 0.0
    for head, state in zip(heads, states, strict=True):
        if head.kind == "shared":
            continue
        answer = head.among(head.corrected(state), matrix, tokens)
        if head.elsewhere is None:
            loss = objective(answer + more, teacher) / whole
        else:
            loss = objective(answer, outcomes.of(head).to(last.dtype)) / whole
        total += loss.item()
        if head.probe is not None:
            loss = loss + foresight(head.probed(state), answer.detach(), teacher - more) / whole
        loss.backward()
    return total


class _Outcomes:
    """The model's logits by what heads choose from: made once for heads that have the same short list."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits
        self._last: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def of(self, head: LanguageHead) -> Tensor:
        """For one head with a short list."""
        if self._last is None or not torch.equal(self._last[0], head.words):
            self._last = head.words, head.outcomes_of(self._logits)
        return self._last[1]


class _Run:
    """How far a training is; what of it a checkpoint keeps."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.step = self.tokens = 0
        self.seconds = 0.0
        self.losses: list[float] = []

    def share(self, recipe: LanguageRecipe) -> float:
        """How much of it is done, from 0 to 1 or more."""
        limit = recipe.time_limit
        return max(self.step / recipe.steps, self.seconds / limit if limit else 0.0)

    def learned(self, loss: float, tokens: int) -> None:
        """Count a step."""
        self.step += 1
        self.tokens += tokens
        self.losses.append(loss)

    def save(self, model: Transformer, place: Path) -> None:
        """Write a checkpoint beside its place and rename it there."""
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.{os.getpid()}")
        counts = {name: getattr(self, name) for name in ("step", "tokens", "seconds", "losses")}
        heads = model.language_exits.state_dict()
        torch.save({"heads": heads, "optimizer": self.optimizer.state_dict(), "counts": counts}, beside)
        os.replace(beside, place)

    def restore(self, model: Transformer, place: Path) -> bool:
        """Go on from a checkpoint; whether there is one."""
        if not place.exists():
            return False
        found = torch.load(place, weights_only=True)
        model.language_exits.load_state_dict(found["heads"])
        self.optimizer.load_state_dict(found["optimizer"])
        for name, value in found["counts"].items():
            setattr(self, name, value)
        return True


def _only_exits_learn(model: Transformer) -> list[nn.Parameter]:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    heads = [head_after(model, layer) for layer in model.shape.exit_layers]
    learning = [
        p for head in heads if head.kind != "shared" for p in head.parameters() if p.is_floating_point()
    ]
    for parameter in learning:
        parameter.requires_grad_(True)
    return learning


def _batches(rows: Sequence[Written], recipe: LanguageRecipe, done: int) -> Iterator[list[int]]:
    """Indices of `rows` for each step from `done` on; the same whenever it is asked."""
    sampler = LengthGrouped([len(row) for row in rows], recipe.batch_size, recipe.seed)
    each = -(-len(rows) // recipe.batch_size)
    epoch = done // each
    while True:
        sampler.set_epoch(epoch)
        order = list(sampler)
        for step in range(done - epoch * each, each):
            yield order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        epoch += 1
        done = epoch * each


@cache
def _pays() -> bool:
    return bfloat16_pays()


def _half(model: Transformer) -> bool:
    """Whether the frozen backbone runs in bfloat16: float32 ones, where that is faster."""
    return model.embeddings.token.weight.dtype == torch.float32 and _pays()
