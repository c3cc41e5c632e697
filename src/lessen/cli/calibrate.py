"""`lessen calibrate`: certify how early a model may answer, from kept answers or on new rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from lessen.cli.audit import audit_and_say
from lessen.cli.calibrate_classifier import calibrate_classifier
from lessen.cli.calibrate_generator import calibrate_generator
from lessen.cli.given import AUDITED, CLASSIFIER_ROWS, GENERATOR, STORED, refuse_given, refuse_others
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
from lessen.errors import InputError
from lessen.records import MOST_SEED


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
    seed: Annotated[int, typer.Option(min=0, max=MOST_SEED, help="Of the random draws.")] = 0,
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
        refuse_others(context, AUDITED, "does not go with --audit, which tests the certificate as it is")
        audit_and_say(model, data, reference, (text_column, pair_column, label_column, task), as_json)
        return
    if out is None and not overwrite and rule == "certified":
        check_certificate(model, precision_of(precision))
    from lessen.cli.compress_generator import bounds_of, language_asked
    from lessen.data.documents import documents
    from lessen.data.reading import read
    from lessen.loading import generates, has_exits

    ways: dict[str, Any] = {
        "made": model,
        "place": out or model,
        "precision": precision_of(precision),
        "draws": None if resplits is None else (resplits, seed),
    }
    if generates(model):
        refuse_given(context, CLASSIFIER_ROWS | {"reference"}, GENERATOR)
        bounds = bounds_of(max_drop, target_agreement)
        of_exits: dict[str, Any] = {"one_threshold": one_threshold, "decay": decay}
        language = language_asked(bounds, confidence, loss, rule, block, **of_exits)
        text = None if data is None else documents(data, text=text_column)
        stored_only = out is not None and not has_exits(model)
        if stored_only:
            refuse_others(context, STORED, f"is about exits, and {model} has none")
        with _place(model, precision_of(precision), out, overwrite=overwrite) as folder:
            if not stored_only:
                done = calibrate_generator(folder, text, language, **ways)
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
    with _place(model, precision_of(precision), out, overwrite=overwrite) as folder:
        outcome, facts = calibrate_classifier(folder, rows, asked, reference=reference, **ways)
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


def _show_draws(facts: dict[str, Any], asked: Any) -> None:
    print(
        f"Of {facts['resplits']:,} random draws, {percent(facts['violations'])}% led to a point over the "
        f"bound (allowed: {percent(asked.delta / len(asked.bounds))}%); by the plug-in rule "
        f"{percent(facts['violations_plug_in'])}%."
    )


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
