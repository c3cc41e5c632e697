"""`lessen calibrate`: certify how early a model may answer, from kept answers or on new rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lessen.cli.given import CLASSIFIER_ROWS, GENERATOR, STORED, refuse_given, refuse_others
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
    Precision,
    RuleName,
    TargetAgreement,
    Task,
    TextColumn,
    asked_of,
    emit,
    percent,
    precision_of,
    say,
    show_drafts,
    show_promises,
    table,
)
from lessen.cli.overwriting import Overwrite, check_certificate, check_free
from lessen.cli.own_rows import documents_of_split, rows_of_split
from lessen.errors import InputError


def command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="A folder written by lessen.")],
    data: Annotated[
        str | None, typer.Option(help="Rows to calibrate on; else those kept aside when it was made.")
    ] = None,
    max_drop: MaxDrop = None,
    target_agreement: TargetAgreement = None,
    block: Block = 32,
    one_threshold: OneThreshold = False,
    decay: DecayRate = None,
    confidence: Confidence = "90%",
    loss: LossName = None,
    rule: RuleName = "certified",
    reference: Annotated[
        str | None, typer.Option(help="Measure losses against this model; else against its own full depth.")
    ] = None,
    audit: Annotated[
        bool,
        typer.Option("--audit", help="Only test the certificate on newer rows, given by --data."),
    ] = False,
    resplits: Annotated[
        int | None,
        typer.Option(min=1, help="Also try the procedure on so many draws of half the rows."),
    ] = None,
    precision: Precision = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Store the model there in --precision, of few bits, and certify that one."),
    ] = None,
    overwrite: Overwrite = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the random draws.")] = 0,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    label_column: LabelColumn = None,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Find the fastest Points whose loss stays below a bound, and certify them.

    The confidence is that of one calibration, decided on before its rows were looked at; trying again until
    something passes is not.

    Rows that training saw are left out and counted. Points certified together share the risk of being wrong.
    Where nothing can be certified the model answers at full depth, and the reason is printed.

    With --audit, newer rows, labelled or not, say whether the certificate still stands. What they say is
    kept, adds up over audits, and may be asked for at any time without spoiling the confidence.
    """
    if not model.is_dir():
        raise InputError(f"{model} is not a folder; calibrate one that compress wrote")
    if audit:
        given = {
            "--max-drop": max_drop,
            "--target-agreement": target_agreement,
            "--resplits": resplits,
            "--rule": rule != "certified" or None,
            "--loss": loss,
            "--confidence": confidence != "90%" or None,
            "--precision": precision,
            "--out": out,
            "--overwrite": overwrite or None,
            "--seed": seed or None,
            "--one-threshold": one_threshold or None,
            "--decay": decay,
        }
        if extra := next((name for name, value in given.items() if value is not None), None):
            raise InputError(f"{extra} does not go with --audit, which tests the certificate as it is")
        _audit(model, data, reference, (text_column, pair_column, label_column, task), as_json)
        return
    if out is None and not overwrite and rule == "certified":
        check_certificate(model, precision_of(precision))
    from lessen.cli.compress_generator import bounds_of, language_asked
    from lessen.data.documents import documents
    from lessen.data.reading import read
    from lessen.loading import generates, has_exits

    if generates(model):
        refuse_given(context, CLASSIFIER_ROWS | {"reference"}, GENERATOR)
        bounds = bounds_of(max_drop, target_agreement)
        of_exits: dict[str, Any] = {"one_threshold": one_threshold, "decay": decay}
        language = language_asked(bounds, confidence, loss, rule, block, **of_exits)
        draws = None if resplits is None else (resplits, seed)
        text = None if data is None else documents(data, text=text_column)
        stored_only = out is not None and not has_exits(model)
        if stored_only:
            refuse_others(context, STORED, f"is about exits, and {model} has none")
        with _place(model, precision_of(precision), out, overwrite=overwrite) as folder:
            if not stored_only:
                again = partial(_again, documents_of_split, model)
                how = (language, precision_of(precision), draws, again)
                done = _calibrate_generator(folder, out or model, text, *how)
            else:
                say("it has no exits, so there is nothing to certify")
                done = None
        if as_json:
            emit({"points": [], "certified": False} if done is None else done[1])
        elif done is not None:
            outcome, facts, loaded = done
            _show(outcome, facts, "prompts")
            show_drafts(loaded.config)
            if "resplits" in facts:
                _show_draws(facts, language)
        return
    if target_agreement is not None:
        raise InputError("--target-agreement is for models that generate; use --loss disagreement --max-drop")
    refuse_given(
        context, {"one_threshold", "decay", "block"}, f"is for models that generate; {model} does not"
    )
    asked = asked_of(max_drop, confidence, loss, rule)
    rows = None
    if data is not None:
        rows = read(data, text=text_column, pair=pair_column, label=label_column, task=task)
    draws = None if resplits is None else (resplits, seed)
    with _place(model, precision_of(precision), out, overwrite=overwrite) as folder:
        how = (asked, precision_of(precision), draws, partial(_again, rows_of_split, model))
        outcome, facts = _calibrate_classifier(folder, out or model, rows, *how, reference)
    if as_json:
        emit(facts)
        return
    _show(outcome, facts, "rows")
    if resplits is not None:
        _show_draws(facts, asked)


@contextmanager
def _place(folder: Path, precision: Any, out: Path | None, *, overwrite: bool) -> Iterator[Path]:
    """The folder to calibrate: the one given, or one with its model in few bits, which becomes `out` in the
    end if all went well."""
    from lessen.artefact import KEPT, replacing_folder
    from lessen.card import write_card
    from lessen.loading import has_exits, load
    from lessen.plan import FEW_BITS

    if out is None:
        yield folder
        return
    if precision not in FEW_BITS:
        raise InputError(f"--out stores weights in few bits: give --precision {', '.join(FEW_BITS)} with it")
    if out.resolve() == folder.resolve():
        raise InputError(f"--out {out} is the model itself; name another folder")
    if not overwrite:
        check_free([out])
    model = load(folder, precision=precision)
    with replacing_folder(out) as fresh:
        model.save_pretrained(fresh)
        if has_exits(fresh) and not (fresh / KEPT).exists():
            raise InputError(
                f"{folder} has no {KEPT} that goes with its model: compress again, without --exits-only"
            )
        write_card(fresh, out.resolve().name)
        yield fresh
    say(f"stored in {precision}: {out}")


def _again(reading: Any, folder: Path) -> Any:
    """The rows, or documents, of the kept answers."""
    table_of, about = reading(folder, "calibration")
    say(f"the kept answers are another precision's; {about} are read again")
    return table_of


def _show_draws(facts: dict[str, Any], asked: Any) -> None:
    print(
        f"Of {facts['resplits']:,} random draws, {percent(facts['violations'])}% led to a point over the "
        f"bound (allowed: {percent(asked.delta / len(asked.bounds))}%); by the plug-in rule "
        f"{percent(facts['violations_plug_in'])}%."
    )


def _calibrate_classifier(
    folder: Path,
    place: Path,
    data: Any,
    asked: Any,
    precision: Any,
    draws: tuple[int, int] | None,
    again: Any,
    reference: str | None,
) -> tuple[Any, dict[str, Any]]:
    """Calibrate the classifier in a folder, which is at or goes to `place`: what came of it.

    `data` are rows or None, `draws` their number and seed; `again` reads those of the kept answers.
    """
    from lessen.card import write_card
    from lessen.certificate import one_digest
    from lessen.promise.classifiers import calibrate_classifier
    from lessen.promise.outputs import task_of
    from lessen.promise.resplits import resplit
    from lessen.promise.rows import rows_for

    loaded, kept, dropped = rows_for(folder, data, reference=reference, precision=precision, again=again)
    if dropped:
        say(f"{dropped:,} rows were left out: repeated, or seen by training or the making of exit rules")
    hashed = reference is not None and Path(reference, "config.json").exists()
    outcome = calibrate_classifier(
        folder,
        loaded,
        kept,
        asked,
        reference=reference or "full depth",
        reference_weights=one_digest(Path(reference)) if reference and hashed else None,
        dropped=dropped,
    )
    write_card(folder, place.resolve().name)
    facts = outcome.as_dict()
    if draws is not None:
        count, seed = draws
        delta, loss = outcome.verdicts[0].delta, outcome.asked.loss
        options: dict[str, Any] = {"loss": loss, "count": count, "seed": seed}
        pool, path, task = kept.calibration, outcome.basis.path, task_of(loaded, kept.label_range)
        facts |= resplit(pool, path, task, outcome.asked.bounds[0], delta, **options)
    return outcome, facts


def _calibrate_generator(
    folder: Path,
    place: Path,
    data: Any,
    asked: Any,
    precision: Any,
    draws: tuple[int, int] | None,
    again: Any,
) -> tuple[Any, dict[str, Any], Any]:
    """Calibrate the generator in a folder, which is at or goes to `place`: what came of it, and the model.

    `data` are documents or None, `draws` their number and seed; `again` reads those of the kept traces.
    """
    from lessen.card import write_card
    from lessen.progress import counting
    from lessen.promise.generators import calibrate_generator, traces_for
    from lessen.promise.language import Decoder
    from lessen.promise.resplits import resplit_prompts
    from lessen.systems.working import work_of

    with counting("continuing prompts", "prompts") as watch:
        loaded, kept, dropped = traces_for(folder, data, precision, watch, again, work_of(place))
    if dropped:
        say(f"{dropped:,} documents were left out: repeated, or seen by training or the making of exit rules")
    outcome = calibrate_generator(folder, loaded, kept, asked, dropped=dropped)
    write_card(folder, place.resolve().name)
    facts = outcome.as_dict()
    if draws is not None and outcome.basis.path:
        decoder = Decoder(loaded.config.facts(), loaded.config.form(), asked.block)
        count, seed = draws
        delta, loss = outcome.verdicts[0].delta, asked.loss
        options: dict[str, Any] = {"loss": loss, "count": count, "seed": seed}
        pool, path = kept.calibration, outcome.basis.path
        facts |= resplit_prompts(pool, path, decoder, asked.bounds[0], delta, **options)
    return outcome, facts, loaded


def _audit(
    folder: Path, data: str | None, reference: str | None, columns: tuple[str | None, ...], as_json: bool
) -> None:
    from lessen.data.documents import documents
    from lessen.data.reading import read
    from lessen.loading import generates
    from lessen.progress import counting
    from lessen.promise.audit import audit_folder, sentence_of
    from lessen.promise.audit_prompts import audit_prompts

    if data is None:
        raise InputError("--audit needs newer rows; name them with --data")
    text, pair, label, task = columns
    unit = "rows"
    if folder.is_dir() and generates(folder):
        unit, unfit = "prompts", (reference, pair, label, task)
        for name, value in zip(("reference", "pair-column", "label-column", "task"), unfit, strict=True):
            if value is not None:
                raise InputError(f"--{name} does not apply to a model that generates")
        with counting("continuing prompts", unit, kept=False) as watch:
            outcome = audit_prompts(folder, documents(data, text=text), watch)
    else:
        outcome = audit_folder(folder, read(data, text=text, pair=pair, label=label, task=task), reference)
    if outcome.dropped:
        say(f"{outcome.dropped:,} {unit} were left out: seen in training, calibration or an earlier audit")
    if as_json:
        emit(outcome.as_dict())
        return
    print(f"{outcome.rows:,} newer {unit} audited so far, {outcome.labelled:,} with exact losses")
    for finding in outcome.findings:
        print(sentence_of(finding, outcome.certificate))


def _show(outcome: Any, facts: dict[str, Any], unit: str) -> None:
    """The Points, and what is promised of them."""
    table(
        ["point", "loss", "p-value", "mean layers", "leave early"],
        [
            [
                point["name"],
                f"{percent(point['risk'])}%",
                "" if point["pvalue"] is None else f"{point['pvalue']:.2g}",
                f"{point['mean_layers']:.2f}",
                f"{percent(point['early'])}%",
            ]
            for point in facts["points"]
        ],
        f"{facts['n']:,} calibration {unit}, loss: {facts['loss']}, against {facts['reference']}",
    )
    show_promises(outcome)
