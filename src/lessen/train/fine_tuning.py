"""Fine-tune a model with exits through transformers' Trainer: fast on CPUs, resumable, reproducible."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lessen.data.table import Table
from lessen.errors import InputError, Interrupted
from lessen.memory import keep_freed_memory
from lessen.model.latent import latents_of
from lessen.plan import Rates, Size
from lessen.progress import Bar
from lessen.records import Seed, Strict
from lessen.runtime.text import Encoded, encode
from lessen.tokens.passes import Passes, all_stay
from lessen.train.callbacks import Along, BestBeside, Clipping, Shown, StopAtStepEnd
from lessen.train.changing import changed
from lessen.train.checkpoints import last_whole
from lessen.train.objectives import UNLABELLED, objective
from lessen.train.sampler import LengthGrouped
from lessen.train.teaching import DISTILLATIONS, Teacher, features
from lessen.train.trainer import FineTuner, Judge, check_weights, selecting

STEPS_BETWEEN_CHECKPOINTS = 200
"""What a run that is killed outright can lose; a signal that can be caught loses nothing."""

LOOKS = 10
"""How often a judge looks at a model at least."""


class Recipe(Strict):
    """How to train; recorded in the artefact.

    Attributes:
        objective: A name from `train.objectives`, or one from `train.teaching`, which needs a teacher.
        features_first: Share of the steps in which only the teacher's states are learned.
        epochs: Passes over the data.
        rows: Rows those passes are meant for; fewer rows get more of them, more rows fewer (`passes_over`).
            None: as many whatever the rows.
        batch_size: Rows per step.
        learning_rate: Peak, reached after the warm-up and falling linearly to zero.
        head_learning_rate: The same for exit heads, which start from nothing.
        warmup: Share of the steps spent warming up.
        weight_decay: Of matrices; none on biases and norms.
        max_tokens: Texts are cut to this for training.
        equilibrium: Gradient equilibrium (COST-EFF page, 1.4).
        teacher: Number of the stage (from 1) whose result teaches; None: no teacher.
        from_checkpoint: Whether to start from the checkpoint's weights instead of the stage before.
        train_backbone: Off: only exit heads before the last are trained, everything else is frozen.
        speedup: Tokens leave while training, at most as many as make for this ratio of MACs; 1: none.
        as_far_as_rows_allow: Whether a speed-up that rows are too short for is lowered, where it is refused
            otherwise; and shares that were given for each layer are taken as they are.
        rates: Whether so many leave in every step, or fewer in some.
        word_dropout: Share of the tokens whose embedding is left out in a step, their position is not.
        attention_dropout: Overrides the checkpoint's; 0 spares the random numbers, most of an attention's
            cost here.
        seed: Of the data order, the dropout and the new heads.
    """

    objective: str = "depth_weighted"
    features_first: Annotated[float, Field(ge=0, le=1)] = 0.0
    epochs: Annotated[float, Field(gt=0)] = 3.0
    rows: Size | None = None
    batch_size: Size = 32
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_tokens: Size = 128
    equilibrium: bool = False
    teacher: Size | None = None
    from_checkpoint: bool = False
    train_backbone: bool = True
    speedup: Annotated[float, Field(ge=1)] = 1.0
    as_far_as_rows_allow: bool = False
    rates: Rates = "one"
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    attention_dropout: float | None = 0.0
    seed: Seed = 0


FALLING = 0.3
"""How epochs fall with rows: their power in COST-EFF's table from MRPC to MNLI (its page, 1.9)."""


def passes_over(rows: int, recipe: Recipe) -> float:
    """Epochs of a recipe on so many rows, at most four times and at least a quarter of what it says."""
    if recipe.rows is None:
        return recipe.epochs
    return recipe.epochs * min(4.0, max(0.25, (recipe.rows / max(1, rows)) ** FALLING))


def fine_tune(
    model: Any,
    data: Table,
    recipe: Recipe,
    folder: Path,
    *,
    passes: Passes | None = None,
    teacher: Any = None,
    told: Callable[[float], None] | None = None,
    judge: Judge | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train `model` in place, continuing from the newest checkpoint in `folder` if there is one.

    Args:
        model: A `LessenForSequenceClassification` with a tokenizer.
        data: Labelled rows; may be unlabelled for the `self_supervised` objective.
        recipe: How to train.
        folder: Where checkpoints go.
        passes: What takes tokens away in each step; None: nothing does.
        teacher: A classifier with the same layers, where the objective learns from one.
        told: Called before each step with the share of the steps that is done, and with 1 at the end.
        judge: Scores the model between steps, `LOOKS` times or more often; the best step is the result, of
            equal ones the first. None: the last step is.
        quiet: No progress bar.

    Returns:
        `steps`, `seconds`, the last `loss`, the `precision` used and whether the run was `resumed`; with a
        judge which step was `selected` and its `score`.

    Raises:
        InputError: When the data lacks labels the objective needs, or there is no teacher for it.
        Diverged: When the loss is no finite number, or a weight in the end.
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    if data.labels is None and recipe.objective not in UNLABELLED:
        raise InputError(f"{data.name} has no labels, which objective {recipe.objective} needs")
    along = Along(told)
    wanted: dict[str, Any] = {"equilibrium": recipe.equilibrium, "passes": passes or all_stay}
    if recipe.objective in DISTILLATIONS:
        if teacher is None:
            raise InputError(f"objective {recipe.objective} learns from a teacher, and there is none")
        if teacher is model:
            raise InputError("a model cannot learn from itself while it changes; give a copy as its teacher")
        if passes is not None:
            raise InputError(f"objective {recipe.objective} compares every token; none may leave")
        wanted["teaching"] = _teaching(Teacher(teacher, model.config.form()), recipe, along)
    else:
        wanted["objective"] = objective(recipe.objective, model.problem_type)
    _set_trainable(model, all_of_it=recipe.train_backbone)
    limit = min(recipe.max_tokens, model.config.facts().max_tokens)
    rows = EncodedRows(encode(model.tokenizer, data.texts, limit), data.labels)
    try:
        with changed([*((model, *each) for each in wanted.items()), *_dropout_of_the_frozen(model)]):
            return steps_of(model, model.transformer, rows, recipe, folder, along, judge, quiet=quiet)
    finally:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        model.eval()


def steps_of(
    model: Any,
    transformer: Any,
    rows: EncodedRows,
    recipe: Recipe,
    folder: Path,
    along: Along,
    judge: Judge | None = None,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    """Take all steps of a recipe, continuing from the newest checkpoint in `folder` if there is one.

    Args:
        model: Returns a loss for a batch of `rows`; trained in place where parameters want a gradient.
        transformer: The part of it that is one.
        rows: What to train on.
        recipe: How; its objective is the model's business.
        folder: Where checkpoints go.
        along: Told of every step.
        judge: As for `fine_tune`.
        quiet: No progress bar.

    Returns:
        As `fine_tune`.

    Raises:
        Diverged: When the loss is no finite number, or a weight in the end.
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    keep_freed_memory()
    half, passes = bfloat16_pays(), passes_over(len(rows), recipe)
    between = STEPS_BETWEEN_CHECKPOINTS
    if judge is not None:
        between = min(between, math.ceil(passes * len(rows) / recipe.batch_size / LOOKS))
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=passes,
        per_device_train_batch_size=recipe.batch_size,
        warmup_steps=recipe.warmup,
        max_grad_norm=1.0,
        lr_scheduler_type="linear",
        bf16=half,
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
        data_seed=recipe.seed,
        save_strategy="steps",
        save_steps=between,
        save_total_limit=1 if judge is None else 2,
        **({} if judge is None else selecting(between)),
        logging_steps=25,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    stop, shown = StopAtStepEnd(), Shown(Bar("training", quiet=quiet))
    sampler = LengthGrouped([len(row.ids) for row in rows.encoded], recipe.batch_size, recipe.seed)
    trainer = FineTuner(
        sampler,
        judge,
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=rows.collate,
        optimizers=(_optimizer(model, recipe), None),
        callbacks=[stop, along, Clipping(latents_of(model)), BestBeside(folder), shown],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_whole(folder)
    dropout = [(transformer.embeddings, "word_dropout", recipe.word_dropout)]
    if recipe.attention_dropout is not None:
        dropout += [(layer.attention, "dropout", recipe.attention_dropout) for layer in transformer.layers]
    with stop.on_signals(), changed(dropout):
        outcome = trainer.train(resume_from_checkpoint=checkpoint)
    if stop.asked:
        raise Interrupted(f"stopped after step {trainer.state.global_step}; run the same command to continue")
    check_weights(model.parameters(), trainer.state.global_step)
    along.finish()
    selected = {"selected": trainer.state.best_global_step, "score": trainer.state.best_metric}
    return {
        "steps": trainer.state.global_step,
        "seconds": round(outcome.metrics.get("train_runtime", 0.0), 1),
        "loss": round(outcome.training_loss, 4),
        "precision": "bfloat16 autocast" if half else "float32",
        "resumed": checkpoint is not None,
        **({} if judge is None else selected),
    }


def _teaching(teacher: Teacher, recipe: Recipe, along: Along) -> Callable[..., Tensor]:
    distilled = DISTILLATIONS[recipe.objective]

    def loss(*batch: Any) -> Tensor:
        learned = features if along.share < recipe.features_first else distilled
        return learned(teacher.matched(*batch))

    return loss


class EncodedRows(Dataset):
    """Token ids and labels of a table, padded per batch only as far as the Trainer's interface needs."""

    def __init__(self, encoded: Sequence[Encoded], labels: Sequence[Any] | None) -> None:
        self.encoded = encoded
        self.labels = labels

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.encoded[index]
        label = 0 if self.labels is None else self.labels[index]
        return {"input_ids": row.ids, "token_type_ids": row.segments, "labels": label}

    def collate(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A padded batch with its mask; the model takes the padding out again before the first layer."""
        width = max(len(row["input_ids"]) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        segments = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            length = len(row["input_ids"])
            ids[place, :length] = torch.tensor(row["input_ids"])
            mask[place, :length] = 1
            if row["token_type_ids"] is not None:
                segments[place, :length] = torch.tensor(row["token_type_ids"])
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": torch.tensor([r["labels"] for r in rows]),
        }
        if any(row["token_type_ids"] is not None for row in rows):
            batch["token_type_ids"] = segments
        return batch


def _optimizer(model: Any, recipe: Recipe) -> torch.optim.Optimizer:
    """Fused AdamW; heads at their own rate, no decay on biases, norms, and what binary weights learn by."""
    latents = {id(latent) for latent in latents_of(model)}
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith("transformer.exits."), parameter.ndim > 1 and id(parameter) not in latents)
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": recipe.head_learning_rate if head else recipe.learning_rate,
                "weight_decay": recipe.weight_decay if matrix else 0.0,
            }
            for (head, matrix), parameters in groups.items()
        ],
        fused=True,
    )


def _set_trainable(model: Any, *, all_of_it: bool) -> None:
    last = str(model.transformer.depth)
    for name, parameter in model.named_parameters():
        early = name.startswith("transformer.exits.") and not name.startswith(f"transformer.exits.{last}.")
        parameter.requires_grad_(all_of_it or early)


def _dropout_of_the_frozen(model: Any) -> Iterator[tuple[torch.nn.Module, str, float]]:
    """None: what is not trained answers as it will when it runs, for exits must not learn from noise."""
    for part in [model.transformer.embeddings, *model.transformer.layers, *model.transformer.exits.values()]:
        if not any(parameter.requires_grad for parameter in part.parameters()):
            for module in part.modules():
                name = "p" if isinstance(module, torch.nn.Dropout) else "dropout"
                if isinstance(getattr(module, name, None), float):
                    yield module, name, 0.0


def in_training_precision(device: torch.device) -> torch.autocast:
    """The context a training step computes in on a device: bfloat16 where that pays, else nothing changes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_pays())


def bfloat16_pays() -> bool:
    """Whether products in bfloat16 are faster than in float32 here: a GPU, or a CPU with the instructions."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
