"""From a generator and plain text to a model folder with exits: read, split, train, calibrate, test, save.

What `pipeline.py` is for rows and labels. Everything a run decides is in its `LanguagePlan`, which is saved
with the result and can be replayed. A run that was stopped continues from its working folder, `OUT.work`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lessen.artefact import KEPT, write_json
from lessen.card import does_of
from lessen.certificate import one_digest
from lessen.data.documents import documents
from lessen.data.splits import split
from lessen.data.table import Table
from lessen.depth.criteria import LANGUAGE
from lessen.depth.decay import DECAYING
from lessen.depth.placement import usual_places
from lessen.errors import InputError
from lessen.hf import LessenGenerator
from lessen.loading import load
from lessen.measure.exit_quality import exit_quality, set_cuts
from lessen.model.architecture import Architecture
from lessen.plan import WITHOUT_RANK, LanguageExitShape, LanguageHeadKind, Size
from lessen.progress import counting
from lessen.promise.generators import LanguageAsked, calibrate_generator
from lessen.promise.language import Decoder, measured
from lessen.promise.prompts import Prompting, check_room, keep_traces, traces_of
from lessen.promise.settle import FEWEST_ROWS, Calibration
from lessen.promise.traces import Traces
from lessen.records import Seed, Strict, parse
from lessen.reshaping import with_language_exits
from lessen.runtime.source import Reply, Written
from lessen.saving import save_exits
from lessen.systems.dividing import divide, known_to
from lessen.systems.material import by_frequency, listing, material
from lessen.systems.milestone import Milestone
from lessen.systems.planning import Share
from lessen.systems.working import Say, begin_work, result_folder, working_folder
from lessen.train.language_exits import LanguageRecipe, train_exits

EXITS = 3
"""Exits of a generator spread evenly, where the user names no places; fewer where so many do not fit."""

RANK, WORDS = 256, 4096
"""Of corrections, at most and no more than half the width, and of short lists, where the user names none."""

DEAR = 2
"""Layers the matrix to the vocabulary may cost; where it is more, exits name tokens of a short list."""

LEARNING_RATES: dict[LanguageHeadKind, float] = {
    "full": 1e-4,
    "tied": 5e-3,
    "gate": 5e-3,
    "shortlist": 5e-3,
    "shared": 5e-3,
}
"""A matrix that starts as the model's own is changed with care; a correction starts from nothing."""

GoingOn = Callable[[str], AbstractContextManager[dict[str, Any]]]
"""For a part of the documents, options by which continuing its prompts can be watched and stopped."""


class LanguagePlan(Strict):
    """Everything a run on a generator decides.

    `shares` of the documents are kept aside where no files are named: to make exit rules from (`tune`), to
    test promises on (`calibration`), and for the final figures (`test`); of each at most so many `_prompts`
    are continued.
    """

    version: Literal[1] = 1
    kind: Literal["language"] = "language"
    model: str
    data: str
    tune_data: str | None = None
    calibration_data: str | None = None
    test_data: str | None = None
    text_column: str | None = None
    system: Literal["self-exit"] = "self-exit"
    recipe: LanguageRecipe = LanguageRecipe()
    exits: Annotated[tuple[LanguageExitShape, ...], Field(min_length=1)]
    criteria: Annotated[tuple[str, ...], Field(min_length=1)] = LANGUAGE
    promise: LanguageAsked = LanguageAsked()
    prompting: Prompting = Prompting()
    tune_share: Share = 0.1
    calibration_share: Share = 0.15
    test_share: Share = 0.15
    tune_prompts: Size = 300
    calibration_prompts: Size = 500
    test_prompts: Size = 500
    with_model: bool = True
    seed: Seed = 0

    @model_validator(mode="after")
    def _thresholds_decay(self) -> LanguagePlan:
        if self.promise.decay is not None and not set(self.criteria) & set(DECAYING):
            asked = ", ".join(self.criteria)
            raise ValueError(f"decay: thresholds of {asked} cannot; add --criterion {' or '.join(DECAYING)}")
        return self


@dataclass(frozen=True)
class GeneratorOutcome:
    """What a run made.

    Attributes:
        folder: Where it is.
        model: With its exits.
        calibration: Points and certificate.
        quality: Of each exit on tuning text, as JSON.
        results: Of each Point on the test prompts, as JSON: `name`, and the fields of `measured`.
        rows: Documents of each part.
        training: Its record.
        tested: Traces on the test prompts.
    """

    folder: Path
    model: LessenGenerator
    calibration: Calibration
    quality: list[dict[str, Any]]
    results: list[dict[str, Any]]
    rows: dict[str, int]
    training: dict[str, Any]
    tested: Traces


def language_exits(
    facts: Architecture,
    layers: Sequence[int] | None = None,
    kind: LanguageHeadKind = "tied",
    rank: int | None = None,
    words: int | None = None,
) -> tuple[LanguageExitShape, ...]:
    """Exits of one kind.

    Args:
        facts: Of the model.
        layers: After how many of them exits sit (1-based); as in `usual_exits` if None.
        kind: Of all.
        rank: Of their corrections, where the kind has one; `RANK` if None.
        words: Of their short lists, where the kind has one.

    Raises:
        PlanError: When the kind has no rank or no list, or a place does not fit.
    """
    fields: dict[str, Any] = {"kind": kind, "rank": rank, "words": words}
    if kind not in WITHOUT_RANK:
        fields["rank"] = rank or max(1, min(RANK, facts.hidden_size // 2))
    if kind == "shortlist":
        fields["words"] = words or WORDS
    depth = facts.num_decoder_layers or facts.num_hidden_layers
    chosen = sorted({*layers}) if layers else usual_exits(depth, kind)
    return tuple(parse(LanguageExitShape, {"layer": layer, **fields}, "exits") for layer in chosen)


def usual_exits(depth: int, kind: LanguageHeadKind) -> list[int]:
    """After how many of `depth` layers exits of a kind sit: spread evenly.

    What leaves by a short list spares the matrix to the vocabulary as well, so one more sits before the last
    layer, where it is right the most often.
    """
    even = usual_places(depth, EXITS)
    return sorted({*even, max(1, depth - 1)} if kind == "shortlist" else {*even})


def usual_kind(facts: Architecture) -> LanguageHeadKind:
    """Of exits, where the user names none: no exit may ask for a whole matrix that costs several layers.

    That matrix is V / (12 d) layers of the page (1.3), and every token pays it at every exit it is asked at.
    """
    dear = facts.vocab_size > DEAR * 12 * facts.hidden_size
    return "shortlist" if dear and facts.vocab_size >= 4 * WORDS else "tied"


def compress_generator(
    plan: LanguagePlan, out: Path, say: Say = print, *, quiet: bool = False
) -> GeneratorOutcome:
    """Carry out a plan and save the result in `out`.

    Raises:
        InputError: When model and text do not fit, or `out` holds the work of another plan.
        Interrupted: When stopped; the same call continues.
    """
    for criterion in plan.criteria:
        if criterion not in LANGUAGE:
            raise InputError(f"criterion {criterion!r} cannot judge a next token; use {', '.join(LANGUAGE)}")
    out = out.resolve()
    work = working_folder(plan, out)
    before = known_to(plan.model, say)
    tables = read_documents(plan, before, say)
    say(", ".join(f"{name} {len(table):,}" for name, table in tables.items()) + " documents")
    base = load(plan.model)
    if not isinstance(base, LessenGenerator):
        raise InputError(f"{plan.model} does not generate; it needs text with labels, or other exits")
    check_room(base, plan.prompting)
    texts, tuning = material(plan.recipe, plan.prompting, base, tables, work, say, quiet=quiet)
    frequent = by_frequency([each.text.tolist() if isinstance(each, Reply) else each for each in texts])
    exits = listing(plan.exits, len(frequent), say)
    model = with_language_exits(base, exits, words=frequent, fresh=plan.recipe.fresh, seed=plan.recipe.seed)
    begin_work(work, plan, tables, base)
    layers = ", ".join(str(exit.layer) for exit in plan.exits)
    say(f"plan: {plan.exits[0].kind} exits after layers {layers}; {plan.recipe.objective}; saved in {work}")
    say(
        "training exits"
        + (f" for at most {plan.recipe.time_limit / 60:.1f} min" if plan.recipe.time_limit else "")
        + "; then they are judged, and prompts continued to calibrate and test on: "
        + ", ".join(f"{name} {len(tables[name]):,}" for name in ("tune", "calibration", "test"))
    )
    model, training, quality = _trained(plan, model, texts, tuning, work, quiet=quiet)
    outcome = _saved(plan, model, tables, before, training, quality, out, going_on(work, quiet=quiet))
    shutil.rmtree(work, ignore_errors=True)
    return outcome


def going_on(work: Path, *, quiet: bool = False) -> GoingOn:
    """For each part of the documents: where prompts are kept while they are continued, and a progress bar.

    Args:
        work: Of the run.
        quiet: No progress bar.
    """

    @contextmanager
    def of(part: str) -> Iterator[dict[str, Any]]:
        with counting(f"continuing {part} prompts", "prompts", quiet=quiet) as watch:
            yield {"kept_in": work / "traces" / part, "watch": watch}

    return of


def read_documents(
    plan: LanguagePlan, learned: frozenset[str] = frozenset(), say: Say = lambda line: None
) -> dict[str, Table]:
    """Training, tuning, calibration and test documents, none of them in two parts.

    Args:
        plan: Of the run.
        learned: Hashes of what its model has learned from before, as in `divide`.
        say: Told how many documents those are.

    Raises:
        InputError: When too few are left for a part.
    """
    data = documents(plan.data, text=plan.text_column)
    named: dict[str, Table] = {}
    shares: dict[str, float] = {}
    for name, source, share in (
        ("tune", plan.tune_data, plan.tune_share),
        ("calibration", plan.calibration_data, plan.calibration_share),
        ("test", plan.test_data, plan.test_share),
    ):
        if source is not None:
            named[name] = documents(source, text=plan.text_column)
        else:
            shares[name] = share
    parts = divide(data, named, shares, plan.seed, learned, say)
    for name, most in (
        ("tune", plan.tune_prompts),
        ("calibration", plan.calibration_prompts),
        ("test", plan.test_prompts),
    ):
        if len(parts[name]) < FEWEST_ROWS:
            raise InputError(
                f"{plan.data}: {len(parts[name])} documents are left for {name}, at least {FEWEST_ROWS} are "
                f"needed; give more text or name a file with --{name}-data"
            )
        if len(parts[name]) > most:  # by hash, so that which ones does not depend on their order
            parts[name] = split(parts[name], {name: most / len(parts[name])}, plan.seed)[name]
    return {name: parts[name] for name in ("train", "tune", "calibration", "test")}


def _trained(
    plan: LanguagePlan,
    model: LessenGenerator,
    texts: Sequence[Sequence[int]] | Sequence[Reply],
    tuning: Sequence[Written],
    work: Path,
    *,
    quiet: bool,
) -> tuple[LessenGenerator, dict[str, Any], list[dict[str, Any]]]:
    """The model with its exits trained and their probes set, the record of it, and how good each exit is.

    What is done is taken from the working folder.
    """
    place, judged, inner = Milestone(work / "exits"), work / "exits" / "quality.json", model.transformer
    if place.reached():
        inner.language_exits.load_state_dict(place.state())
    else:
        training = train_exits(inner, texts, plan.recipe, work / "training", quiet=quiet)
        set_cuts(inner, tuning)
        place.leave(inner.language_exits.state_dict(), model.config.form(), training)
    if not judged.exists():
        with counting("judging exits", "stretches of text", quiet=quiet) as watch:
            quality = exit_quality(inner, tuning, plan.criteria, watch)
        write_json(judged, [each.as_dict() for each in quality])
    return model, place.training(), json.loads(judged.read_text(encoding="utf-8"))


def _saved(
    plan: LanguagePlan,
    model: LessenGenerator,
    tables: dict[str, Table],
    before: frozenset[str],
    training: dict[str, Any],
    quality: list[dict[str, Any]],
    out: Path,
    parts: GoingOn,
) -> GeneratorOutcome:
    """Certify a trained model, save it in `out`, and test it on documents nothing was chosen on."""
    kept = keep_traces(model, tables, plan.prompting, plan.criteria, parts, before)
    with parts("test") as options:
        test = traces_of(model, tables["test"], plan.prompting, plan.criteria, **options)
    rows = {name: len(table) for name, table in tables.items()}
    with result_folder(out, plan) as (fresh, record):
        if plan.with_model:
            model.save_pretrained(fresh)
        else:
            save_exits(model, fresh, plan.model)
        kept = replace(kept, subject=one_digest(fresh))
        kept.save(fresh / KEPT)
        calibration = calibrate_generator(fresh, model, kept, plan.promise)
        results = _tested(plan, model, test)
        record |= {
            "rows": rows,
            "training": [training],
            "exits": quality,
            "test": results,
            "rules": {point["name"]: does_of(point) for point in model.config.points},
        }
    return GeneratorOutcome(out, model, calibration, quality, results, rows, training, test)


def _tested(plan: LanguagePlan, model: LessenGenerator, traces: Traces) -> list[dict[str, Any]]:
    """What every Point does along the model's own continuations of the test prompts."""
    decoder = Decoder(model.config.facts(), model.config.form(), plan.promise.block)
    return [
        {"name": name, "metric": "agreement", "value": did.pop("agreement"), **did}
        for name, point in model.points.items()
        for did in [measured(traces, point.exits, decoder)]
    ]
