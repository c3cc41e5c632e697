"""`lessen compress`: a checkpoint and data in, a model folder with Points out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lessen.cli.output import (
    Block,
    Confidence,
    Json,
    LabelColumn,
    LossName,
    MaxDrop,
    PairColumn,
    RuleName,
    TargetAgreement,
    Task,
    TextColumn,
    asked_of,
    emit,
    percent,
    say,
    show_promises,
    table,
)
from lessen.errors import InputError
from lessen.plan import Rates


def command(
    model: Annotated[str | None, typer.Argument(help="Hub name, local folder, or builtin:NAME.")] = None,
    data: Annotated[
        str | None, typer.Option(help="CSV, TSV, JSONL or Parquet file, builtin:NAME, hub dataset.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = Path("small"),
    max_drop: MaxDrop = None,
    confidence: Confidence = "90%",
    loss: LossName = "drop",
    rule: RuleName = "certified",
    system: Annotated[
        str,
        typer.Option(
            help="early-exit, pabee, deebert, self-exit, latency-adjustable, cost-eff, layer-chop, "
            "beexformer, binarize or masked-words."
        ),
    ] = "early-exit",
    params: Annotated[
        str | None,
        typer.Option(
            help="cost-eff, layer-chop: weights to keep in all, such as 3M, or 1/8 of those there are; "
            "1/2,1/4,1/8 makes a model of each size, in OUT/1of2 and so on."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="cost-eff, layer-chop: size of model.safetensors in 32 bits, such as 12MB, or several."
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="layer-chop: layers to keep, such as 3, or several.")
    ] = None,
    importance: Annotated[
        str | None,
        typer.Option(
            help="What the parts to remove are chosen by. cost-eff: abs_weight, signed_group, magnitude or "
            "random [abs_weight]; layer-chop: loss, deepest or random [loss]."
        ),
    ] = None,
    rank: Annotated[
        float | None,
        typer.Option(
            help="cost-eff: matrices become products of this share of their rank, such as 0.5, where that is "
            "smaller."
        ),
    ] = None,
    last_exit_only: Annotated[
        bool, typer.Option("--last-exit-only", help="cost-eff: score by the last exit, not by all.")
    ] = False,
    uneven: Annotated[
        bool, typer.Option("--uneven", help="cost-eff: layers may keep different widths.")
    ] = False,
    speedup: Annotated[
        float | None, typer.Option(help="latency-adjustable: ratio of MACs trained for. [4.8]")
    ] = None,
    rates: Annotated[
        Rates | None,
        typer.Option(
            help="latency-adjustable: train at that ratio only (one), at one drawn below it in each step "
            "(drawn), or at several in each step, which takes four times as long (sandwich). [drawn]"
        ),
    ] = None,
    retention: Annotated[
        str | None,
        typer.Option(
            help="latency-adjustable: how retention falls with depth: acc or envelope (measured), geometric, "
            "tilt, or a share for each layer, such as 0.9,0.7,0.4. [acc]"
        ),
    ] = None,
    token_score: Annotated[
        str, typer.Option(help="latency-adjustable: what tokens that stay are chosen by; mean is ACC.")
    ] = "mean",
    weight_bits: Annotated[
        int | None,
        typer.Option(
            help="beexformer, binarize, masked-words: 1, or 32 to train the same model as it is. [1]"
        ),
    ] = None,
    activation_bits: Annotated[
        int | None,
        typer.Option(
            help="beexformer, binarize, masked-words: bits of what binary weights multiply: 32, 8 or 1. [32]"
        ),
    ] = None,
    binary_layers: Annotated[
        str | None,
        typer.Option(
            help="beexformer, binarize: layers whose matrices become binary, such as 1,2,4; else all."
        ),
    ] = None,
    float_embedding: Annotated[
        bool,
        typer.Option("--float-embedding", help="beexformer, binarize: the token table stays in 32 bits."),
    ] = False,
    scale: Annotated[
        str | None,
        typer.Option(
            help="beexformer, binarize: what signs are multiplied by: row_mean, tensor_mean, learned or "
            "none. [row_mean]"
        ),
    ] = None,
    gradient: Annotated[
        str | None,
        typer.Option(
            help="beexformer, binarize: the surrogate signs learn by: poly, poly_unscaled, ste or ste_clip. "
            "[poly]"
        ),
    ] = None,
    gradual: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.99,
            help="beexformer, binarize, masked-words: share of the steps in which weights turn from real to "
            "binary. [0]",
        ),
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="binarize: binary weights learn from labels, without a teacher.")
    ] = False,
    word_dropout: Annotated[
        float | None, typer.Option(min=0.0, max=0.99, help="Share of the tokens left out in a training step.")
    ] = None,
    tune_data: Annotated[
        str | None, typer.Option(help="Rows to make exit rules from; else a part of --data.")
    ] = None,
    calibration_data: Annotated[
        str | None, typer.Option(help="Rows to test promises on; else a part of --data.")
    ] = None,
    test_data: Annotated[
        str | None, typer.Option(help="Rows for the final figures; else a part of --data.")
    ] = None,
    exits: Annotated[str | None, typer.Option(help="Layers with an exit, such as 2,4,6; else all.")] = None,
    pool: Annotated[str | None, typer.Option(help="What a new exit reads: cls or mean. [mean]")] = None,
    exit_hidden: Annotated[
        int | None, typer.Option(min=1, help="Width of a dense layer in each new exit.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(help="Generators: full, tied, gate or shortlist; what names a token at an exit. [tied]"),
    ] = None,
    head_rank: Annotated[
        int | None, typer.Option(min=1, help="Generators: of an exit's correction of hidden states. [64]")
    ] = None,
    words: Annotated[
        int | None, typer.Option(min=2, help="Generators: tokens that a shortlist head judges by. [4096]")
    ] = None,
    fresh_heads: Annotated[
        bool, typer.Option("--fresh-heads", help="Generators: exits start from drawn weights.")
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Generators: steps of training. [1000]")] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="Generators: training ends within this time, such as 15m.")
    ] = None,
    penalty: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.99, help="Generators: entropy's weight in --objective penalized. [0.5]"),
    ] = None,
    target_agreement: TargetAgreement = None,
    block: Block = 32,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Generators: beginning of a document that is continued.")
    ] = 64,
    new_tokens: Annotated[int, typer.Option(min=1, help="Generators: length of a continuation.")] = 64,
    prompts: Annotated[
        int | None,
        typer.Option(min=20, help="Generators: most prompts to tune, calibrate and test on. [300, 500, 500]"),
    ] = None,
    exits_only: Annotated[
        bool, typer.Option("--exits-only", help="Generators: save exits without the model they belong to.")
    ] = False,
    criterion: Annotated[
        list[str] | None, typer.Option(help="Exit criteria to choose from; repeatable.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="Training objective; the system's own if not given.")
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Passes over the training rows; of the first stage, others in proportion."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows per training step.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate; of the first stage, others in proportion.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=2, help="Texts are cut to this for training. [128]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the order of rows and new weights.")] = 0,
    plan: Annotated[
        Path | None, typer.Option(help="Replay a saved plan.json; no other option applies.")
    ] = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Train exits into a model and choose how early inputs may leave it.

    A model that generates (--system self-exit) learns from plain text: a .txt file, a folder of them, or the
    texts of a table.

    A part of the data is kept aside to certify Points on, and another for the figures printed, which are
    measured on rows that nothing else saw.
    """
    from lessen.cli.compress_generator import bounds_of, carry_out, language_asked, language_plan
    from lessen.loading import generates
    from lessen.systems import system_of
    from lessen.systems.generator import LanguagePlan
    from lessen.systems.pipeline import compress
    from lessen.systems.planning import Columns, CompressionPlan, plan_for
    from lessen.systems.pretraining import Pretraining
    from lessen.systems.target import targets_of

    if plan is not None:
        chosen = _read_plan(plan)
        if isinstance(chosen, LanguagePlan):
            carry_out(chosen, out, as_json)
            return
    else:
        if model is None or data is None:
            raise InputError("compress needs MODEL and --data (or --plan)")
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
        of_generators = {
            "head": head,
            "head-rank": head_rank,
            "words": words,
            "fresh-heads": fresh_heads or None,
            "steps": steps,
            "time-limit": time_limit,
            "penalty": penalty,
            "target-agreement": target_agreement,
            "exits-only": exits_only or None,
        }
        if generates(model):
            bounds = bounds_of(max_drop, target_agreement)
            language = language_plan(
                model=model,
                data=data,
                system=system,
                layers=exits,
                kind=head or "tied",
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
                promise=language_asked(bounds, confidence, loss, rule, block),
                seed=seed,
                tune_data=tune_data,
                calibration_data=calibration_data,
                test_data=test_data,
                text_column=text_column,
            )
            carry_out(language, out, as_json)
            return
        if other := next((name for name, value in of_generators.items() if value is not None), None):
            raise InputError(f"--{other} is for models that generate; {model} does not")
        choices: dict[str, Any] = {"criteria": tuple(criterion)} if criterion else {}
        if tokens := _tokens(retention, token_score):
            choices["tokens"] = tokens
        if targets := targets_of(params, size, layers):
            choices["targets"] = targets
        chosen = plan_for(
            system_of(system),
            seed=seed,
            alone=alone,
            recipe={key: value for key, value in recipe.items() if value is not None},
            model=model,
            data=data,
            tune_data=tune_data,
            calibration_data=calibration_data,
            test_data=test_data,
            columns=Columns(text=text_column, pair=pair_column, label=label_column, task=_task(task)),
            exits=_exits(model, exits, pool, exit_hidden),
            promise=asked_of(max_drop, confidence, loss, rule),
            **choices,
        )
    assert isinstance(chosen, CompressionPlan)
    if any(isinstance(stage, Pretraining) for stage in chosen.stages):
        _pretrain(chosen, out, as_json)
        return
    outcomes = compress(chosen, system_of(chosen.system), out, say)
    plan_made = chosen.model_dump(mode="json")
    places = [out] if len(outcomes) == 1 else [out / outcome.folder.name for outcome in outcomes]
    facts = [_facts(outcome, place) for outcome, place in zip(outcomes, places, strict=True)]
    if as_json:
        emit((facts[0] if len(facts) == 1 else {"sizes": facts}) | {"plan": plan_made})
        return
    for outcome, place in zip(outcomes, places, strict=True):
        show_results(outcome.results, f"on {outcome.rows['test']:,} rows never seen")
        show_promises(outcome.calibration)
        say(f"saved {place}; it answers at point {outcome.model.config.point!r}")


def _pretrain(plan: Any, out: Path, as_json: bool) -> None:
    """Carry out a plan without a task, and say how words are guessed."""
    from lessen.systems.planning import working_folder
    from lessen.systems.pretraining import pretrain

    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder")
    made = pretrain(plan, working_folder(plan, out.resolve()), out.resolve(), say)
    if as_json:
        facts = {"before": made.before, "after": made.after, "rows": made.rows, "training": made.training}
        emit({"out": str(out), **facts, "plan": plan.model_dump(mode="json")})
        return
    table(
        ["", "loss, nats a word", "guessed"],
        [
            [name, f"{found['loss']:.3f}", percent(found["accuracy"])]
            for name, found in (("before", made.before), ("after", made.after))
        ],
        f"on {made.after['words']:,} masked words of {made.rows['test']:,} texts never seen",
    )
    say(f"saved {out}; train on with: lessen compress {out} --system beexformer --data ...")


def _facts(outcome: Any, place: Path) -> dict[str, Any]:
    """What a run made, as `--json` prints it."""
    return {
        "out": str(place),
        "parameters": sum(weights.numel() for weights in outcome.model.parameters()),
        "points": [result.as_dict() for result in outcome.results],
        "calibration": outcome.calibration.as_dict(),
        "rows": outcome.rows,
        "training": outcome.training,
    }


def show_results(results: Any, title: str) -> None:
    """Points side by side."""
    deepest = max(max(result.layers) for result in results)
    table(
        [
            "point",
            results[0].metric,
            "mean layers",
            "MACs ratio",
            *(f"exit {i}" for i in range(1, deepest + 1)),
        ],
        [
            [
                result.name,
                percent(result.value) if result.metric != "pearson" else f"{result.value:.3f}",
                f"{result.mean_layers:.2f}",
                f"{result.macs_ratio:.2f}x",
                *(f"{result.layers.get(i, 0)}" for i in range(1, deepest + 1)),
            ]
            for result in results
        ],
        title,
    )


def _exits(model: str, layers: str | None, pool: str | None, hidden: int | None) -> Any:
    if layers is None and pool is None and hidden is None:
        return None
    from lessen.loading import depth_of
    from lessen.plan import ExitShape

    depth = depth_of(model)
    try:
        places = sorted({int(part) for part in layers.split(",")}) if layers else list(range(1, depth + 1))
    except ValueError:
        raise InputError(f"--exits {layers}: expected layer numbers such as 2,4,6") from None
    if places[0] < 1 or places[-1] > depth:
        raise InputError(f"--exits {layers}: the model has layers 1 to {depth}")
    if pool not in (None, "cls", "mean"):
        raise InputError(f"--pool {pool}: choose cls or mean")
    shape: dict[str, Any] = {"pool": pool or "mean", "hidden_size": hidden}
    return tuple(ExitShape(layer=place, **shape) for place in sorted({*places, depth}))


def _layers(given: str | None) -> tuple[int, ...] | None:
    try:
        return None if given is None else tuple(sorted({int(part) for part in given.split(",")}))
    except ValueError:
        raise InputError(f"--binary-layers {given}: expected layer numbers such as 1,2,4") from None


def _tokens(retention: str | None, score: str) -> dict[str, Any]:
    """The options about tokens as a `TokenPlan`; empty if none was given."""
    tokens: dict[str, Any] = {} if score == "mean" else {"score": score}
    if retention in (None, "acc", "envelope", "geometric", "tilt"):
        return tokens if retention is None else tokens | {"family": retention}
    try:
        base = tuple(float(share) for share in str(retention).split(","))
    except ValueError:
        raise InputError(
            f"--retention {retention}: choose acc, envelope, geometric, tilt, or a share for each layer"
        ) from None
    return tokens | {"family": "explicit", "base": base}


def _task(task: str | None) -> Any:
    if task not in (None, "classification", "multi-label", "regression"):
        raise InputError(f"--task {task}: choose classification, multi-label or regression")
    return task


def _read_plan(path: Path) -> Any:
    from lessen.plan import parse
    from lessen.systems.generator import LanguagePlan
    from lessen.systems.planning import CompressionPlan

    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--plan {path}: {error}") from None
    language = isinstance(raw, dict) and raw.get("kind") == "language"
    return parse(LanguagePlan if language else CompressionPlan, raw, str(path))
