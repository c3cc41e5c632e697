"""`lessen compress`: a checkpoint and data in, a model folder with Points out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import typer

from lessen.cli import compress_options as options
from lessen.cli.given import CLASSIFIES, GENERATES, PLANNED, READS, refuse_others
from lessen.cli.output import (
    Block,
    Confidence,
    DecayRate,
    Json,
    LabelColumn,
    LossName,
    MaxDrop,
    OneThreshold,
    PairColumn,
    RuleName,
    TargetAgreement,
    Task,
    TextColumn,
    asked_of,
)
from lessen.cli.overwriting import Overwrite, check_free
from lessen.errors import InputError
from lessen.plan import TokenScore


def command(
    context: typer.Context,
    model: options.Model = None,
    data: options.Data = None,
    out: options.Out = Path("small"),
    overwrite: Overwrite = False,
    max_drop: MaxDrop = None,
    confidence: Confidence = "90%",
    loss: LossName = None,
    rule: RuleName = "certified",
    system: options.System = "early-exit",
    plan: options.Plan = None,
    as_json: Json = False,
    tune_data: options.TuneData = None,
    calibration_data: options.CalibrationData = None,
    test_data: options.TestData = None,
    selection_share: options.SelectionShare = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    task: Task = None,
    objective: options.Objective = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    max_tokens: options.MaxTokens = None,
    word_dropout: options.WordDropout = None,
    seed: options.Seed = 0,
    exits: options.Exits = None,
    pool: options.Pool = None,
    exit_hidden: options.ExitHidden = None,
    criterion: options.Criterion = None,
    params: options.Params = None,
    size: options.Size = None,
    layers: options.Layers = None,
    importance: options.Importance = None,
    rank: options.Rank = None,
    last_exit_only: options.LastExitOnly = False,
    uneven: options.Uneven = False,
    speedup: options.Speedup = None,
    rates: options.RatesName = None,
    retention: options.Retention = None,
    token_score: options.TokenScore = None,
    weight_bits: options.WeightBits = None,
    activation_bits: options.ActivationBits = None,
    binary_layers: options.BinaryLayers = None,
    float_embedding: options.FloatEmbedding = False,
    scale: options.Scale = None,
    gradient: options.Gradient = None,
    gradual: options.Gradual = None,
    alone: options.Alone = False,
    head: options.Head = None,
    head_rank: options.HeadRank = None,
    words: options.Words = None,
    fresh_heads: options.FreshHeads = False,
    steps: options.Steps = None,
    time_limit: options.TimeLimit = None,
    penalty: options.Penalty = None,
    target_agreement: TargetAgreement = None,
    block: Block = 32,
    prompt_tokens: options.PromptTokens = 64,
    new_tokens: options.NewTokens = 64,
    prompts: options.Prompts = None,
    exits_only: options.ExitsOnly = False,
    one_threshold: OneThreshold = False,
    decay: DecayRate = None,
    prompt: options.Prompt = None,
    answers: options.Answers = None,
) -> None:
    """Train exits into a model and choose how early inputs may leave it.

    A model that generates (--system self-exit) learns from plain text: a .txt file, a folder of them, or the
    texts of a table; one that answers, from its own answers to these.

    A part of the data is kept aside to certify Points on, and another for the figures printed, which are
    measured on rows that nothing else saw.
    """
    if plan is None and (model is None or data is None):
        raise InputError("compress needs MODEL and --data (or --plan)")
    if plan is not None:
        refuse_others(context, PLANNED, "does not go with --plan, which says it already")
        chosen = _read_plan(plan)
        _check_out(out, chosen, overwrite=overwrite)
        _carry_out(chosen, out, as_json)
        return
    assert model is not None
    assert data is not None
    from lessen.cli.compress_classifier import classifier_plan, exits_of
    from lessen.cli.compress_generator import bounds_of, language_asked, language_plan
    from lessen.cli.compress_prompt_tokens import reading_plan
    from lessen.loading import generates
    from lessen.systems.planning import Columns
    from lessen.systems.target import targets_of

    recipe: dict[str, Any] = {
        "objective": objective,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "max_tokens": max_tokens,
        "speedup": speedup,
        "rates": rates,
        "importance": importance,
        "calibrated": False if last_exit_only else None,
        "budget": "uneven" if uneven else None,
        "rank": rank,
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "layers": _layers(binary_layers),
        "embedding": False if float_embedding else None,
        "scale": scale,
        "gradient": gradient,
        "gradual": gradual,
        "word_dropout": word_dropout,
    }
    writes = generates(model)
    if writes and system == "latency-adjustable":
        refuse_others(context, READS, "does not go with latency-adjustable on a model that writes")
        chosen = reading_plan(
            model=model,
            data=data,
            test_data=test_data,
            columns=Columns(text=text_column, pair=pair_column, label=label_column, task=_task(task)),
            prompt=prompt,
            answers=answers,
            recipe=recipe,
            tokens=_tokens(retention, token_score),
            prompting={"prompt_tokens": prompt_tokens, "new_tokens": new_tokens},
            seed=seed,
        )
    elif writes:
        if prompt is not None or answers is not None:
            raise InputError("--prompt and --answers go with --system latency-adjustable")
        refuse_others(context, GENERATES, f"does not apply to {model}, which generates")
        bounds = bounds_of(max_drop, target_agreement)
        chosen = language_plan(
            model=model,
            data=data,
            system=system,
            layers=exits,
            kind=head,
            rank=head_rank,
            words=words,
            fresh=fresh_heads,
            steps=steps,
            time_limit=time_limit,
            penalty=penalty,
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            prompts=prompts,
            alone=exits_only,
            criterion=criterion,
            recipe=recipe,
            promise=language_asked(
                bounds, confidence, loss, rule, block, one_threshold=one_threshold, decay=decay
            ),
            seed=seed,
            tune_data=tune_data,
            calibration_data=calibration_data,
            test_data=test_data,
            text_column=text_column,
        )
    else:
        refuse_others(context, CLASSIFIES, f"is for models that generate; {model} does not")
        chosen = classifier_plan(
            model=model,
            data=data,
            system=system,
            alone=alone,
            exits=exits_of(model, system, exits, pool, exit_hidden),
            criterion=criterion,
            tokens=_tokens(retention, token_score),
            targets=targets_of(params, size, layers),
            recipe=recipe,
            promise=asked_of(max_drop, confidence, loss, rule),
            seed=seed,
            tune_data=tune_data,
            calibration_data=calibration_data,
            test_data=test_data,
            selection_share=selection_share,
            columns=Columns(text=text_column, pair=pair_column, label=label_column, task=_task(task)),
        )
    _check_out(out, chosen, overwrite=overwrite)
    _carry_out(chosen, out, as_json)


def _carry_out(plan: Any, out: Path, as_json: bool) -> None:
    """Run a plan, of whichever kind, and print what came out."""
    from lessen.cli import compress_classifier, compress_generator, compress_prompt_tokens
    from lessen.systems.generator import LanguagePlan
    from lessen.systems.prompt_tokens import ReadingPlan

    if isinstance(plan, LanguagePlan):
        compress_generator.carry_out(plan, out, as_json)
    elif isinstance(plan, ReadingPlan):
        compress_prompt_tokens.carry_out(plan, out, as_json)
    else:
        compress_classifier.carry_out(plan, out, as_json)


def _check_out(out: Path, plan: Any, *, overwrite: bool) -> None:
    """Refuse to replace models, unless told to, or where the run that made them goes on."""
    from lessen.systems.pipeline import keeps_latents, latent_beside
    from lessen.systems.planning import CompressionPlan
    from lessen.systems.working import begun

    if not overwrite and not begun(out):
        places = [out]
        if isinstance(plan, CompressionPlan):
            places += [out / target.folder for target in plan.targets if len(plan.targets) > 1]
            places += [latent_beside(out)] if keeps_latents(plan) else []
        check_free(places)


def _layers(given: str | None) -> tuple[int, ...] | None:
    try:
        return None if given is None else tuple(sorted({int(part) for part in given.split(",")}))
    except ValueError:
        raise InputError(f"--binary-layers {given}: expected layer numbers such as 1,2,4") from None


def _tokens(retention: str | None, score: str | None) -> dict[str, Any]:
    """The options about tokens as a `TokenPlan`; empty if none was given."""
    if score not in (None, *get_args(TokenScore)):
        raise InputError(f"--token-score {score}: choose {', '.join(get_args(TokenScore))}")
    tokens: dict[str, Any] = {} if score is None else {"score": score}
    if retention in (None, "acc", "envelope", "geometric", "tilt"):
        return tokens if retention is None else tokens | {"family": retention}
    try:
        base = tuple(float(share) for share in str(retention).split(","))
    except ValueError:
        raise InputError(
            f"--retention {retention}: choose acc, envelope, geometric, tilt, or a share for each layer"
        ) from None
    if not all(0 < share <= 1 for share in base) or sorted(base, reverse=True) != list(base):
        raise InputError(
            f"--retention {retention}: expected shares of a row's tokens, above 0, at most 1, none above the "
            "one before"
        )
    return tokens | {"family": "explicit", "base": base}


def _task(task: str | None) -> Any:
    if task not in (None, "classification", "multi-label", "regression"):
        raise InputError(f"--task {task}: choose classification, multi-label or regression")
    return task


def _read_plan(path: Path) -> Any:
    from lessen.records import parse
    from lessen.systems.generator import LanguagePlan
    from lessen.systems.planning import CompressionPlan
    from lessen.systems.prompt_tokens import ReadingPlan

    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--plan {path}: {error}") from None
    kinds: dict[Any, Any] = {"language": LanguagePlan, "reading": ReadingPlan}
    kind = raw.get("kind") if isinstance(raw, dict) else None
    return parse(kinds.get(kind, CompressionPlan), raw, str(path))
