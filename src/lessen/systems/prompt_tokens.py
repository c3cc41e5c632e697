"""The latency-adjustable system on what writes: from a generator to one that can read less of its prompts.

What `pipeline.py` is for classifiers. A generator learns to continue plain text, or any model that writes to
answer rows put into words; first with all tokens, then with prompt tokens leaving. Afterwards the speed-up of
reading is dialled without training. Nothing is certified: such Points are labelled so.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lessen.data.documents import documents
from lessen.data.prompts import (
    Template,
    for_rows,
    labels_in_words,
    needs_labels,
    prompted,
    task_of,
    templates_of,
)
from lessen.data.reading import read
from lessen.data.table import Table
from lessen.errors import InputError, PlanError
from lessen.hf import LessenGenerator
from lessen.history import remember, texts_learned
from lessen.loading import facts_of, load
from lessen.measure.answering import evaluate_answers
from lessen.plan import FULL, Point
from lessen.progress import Watch, adding, counting
from lessen.promise.prompts import Prompting
from lessen.records import Seed, Strict
from lessen.reshaping import with_shape
from lessen.runtime.answers import answer_ids, room_of, score_own
from lessen.runtime.asking import encode_prompts, fitted
from lessen.runtime.retention import ratio_at
from lessen.runtime.text import WHOLE, encode
from lessen.systems.dividing import divide, known_to
from lessen.systems.latency_adjustable import SYSTEM
from lessen.systems.milestone import Milestone
from lessen.systems.planning import Columns, Share
from lessen.systems.token_stages import TokenPlan, check_tokens, give_profile, leaving, passes_of
from lessen.systems.working import Say, begin_work, result_folder, working_folder
from lessen.tokens.usual import usual_elimination
from lessen.train.fine_tuning import Recipe
from lessen.train.lessons import Lesson, learn_to_answer

TESTED = (1.5, 2.0, 3.0, 3.72)
"""Speed-ups the result is tested at, those that can be reached; 3.72 is the paper's for GPT-2."""

MOST_TESTED = 500
"""Continuations of test documents that are scored."""

STAGES = tuple(
    Recipe(
        objective="answers",
        epochs=1.0,
        batch_size=8,
        speedup=3.72 if stage.speedup > 1 else 1.0,
        as_far_as_rows_allow=stage.as_far_as_rows_allow,
        rates=stage.rates,
    )
    for stage in SYSTEM.stages
)
"""Those of the system for classifiers, up to the paper's speed-up of generators."""


class ReadingPlan(Strict):
    """Everything a run decides.

    Without a `prompt` documents are cut into stretches, of which the last `new_tokens` are what is to be
    written after the rest. With one, rows are put into words in every way it names, and what is to be written
    is the answer, the number or the sentence. `answers` are as `data.prompts.templates_of` takes them.

    Without `stages` nothing is trained: the model gets a retention profile and stays as it is.
    """

    version: Literal[1] = 1
    kind: Literal["reading"] = "reading"
    model: str
    data: str
    test_data: str | None = None
    columns: Columns = Columns()
    system: Literal["latency-adjustable"] = "latency-adjustable"
    prompt: str | None = None
    answers: tuple[str, ...] | None = None
    stages: tuple[Recipe, ...] = STAGES
    tokens: TokenPlan = TokenPlan()
    prompting: Prompting = Prompting()
    test_share: Share = 0.1
    seed: Seed = 0


@dataclass(frozen=True)
class ReadingOutcome:
    """What a run made.

    Attributes:
        folder: Where it is.
        model: With its retention profile.
        results: At each speed-up on test rows, as JSON: `speedup` asked for, `macs_ratio` of reading, and
            `loss` (nats a token of what follows) or, for each way to ask, `metric` and `value`.
        rows: Of each part.
        training: Records of the stages.
    """

    folder: Path
    model: LessenGenerator
    results: list[dict[str, Any]]
    rows: dict[str, int]
    training: list[dict[str, Any]]


def usual_for(model: str) -> dict[str, Any]:
    """What a `TokenPlan` says of a model that writes where the user says nothing, from its config alone."""
    return usual_elimination(causal=facts_of(model).causal)._asdict()


def compress_prompt_tokens(
    plan: ReadingPlan, out: Path, say: Say = print, *, quiet: bool = False
) -> ReadingOutcome:
    """Carry out a plan and save the result in `out`.

    Raises:
        InputError: When model and data do not fit, or `out` holds the work of another plan.
        PlanError: When the speed-up is beyond what prompts of these lengths allow.
        LessenError: When the loss is no number.
        Interrupted: When stopped; the same call continues.
    """
    out = out.resolve()
    work = working_folder(plan, out)
    base = load(plan.model)
    if not isinstance(base, LessenGenerator):
        raise InputError(f"{plan.model} does not write; leave --prompt away")
    if base.transformer.decoder is not None and plan.prompt is None:
        raise InputError(f"{plan.model} answers; say how to ask with --prompt, and give labelled rows")
    if base.config.form().language_exits:
        raise InputError(f"{plan.model} has exits; let tokens leave first, then give it exits")
    before = known_to(plan.model, say)
    tables = read_parts(plan, before, say)
    lessons = lessons_of(base, tables["train"], plan)
    say(f"train {len(tables['train']):,}, test {len(tables['test']):,} rows; {len(lessons):,} prompts")
    for line in labels_in_words(tables["train"], _ways(plan, tables["train"])):
        say(line)
    for way in _ways(plan, tables["test"]):
        prompted(tables["test"], way)  # so that what does not fit is said before training
    asked = _asked(base, tables["train"], plan)
    at_task = {"max_tokens": plan.prompting.prompt_tokens, "seed": plan.seed}
    stages = [stage.model_copy(update=at_task) for stage in plan.stages]
    measured = STAGES[-1].model_copy(update=at_task)
    for recipe in stages or [measured]:
        if recipe.speedup > 1:
            check_tokens(base, asked, recipe, plan.tokens)
    begin_work(work, plan, tables, base)
    model = with_shape(base, base.config.form(), base.transformer.state_dict())
    training = []
    if not stages:
        give_profile(model, asked, measured, plan.tokens, work / "profile")
        model.config.profile |= {"trained_at": None}
    for number, recipe in enumerate(stages, start=1):
        place = Milestone(work / f"stage-{number}")
        passes = None
        if recipe.speedup > 1:
            give_profile(model, asked, recipe, plan.tokens, place.folder)
            say(f"stage {number}: {leaving(model, recipe)}")
            passes = passes_of(model, recipe)
        if not place.reached():
            torch.manual_seed(recipe.seed)
            record = learn_to_answer(
                model, lessons, recipe, place.folder / "checkpoints", passes=passes, quiet=quiet
            )
            place.leave(model.transformer.state_dict(), model.config.form(), record)
            shutil.rmtree(place.folder / "checkpoints", ignore_errors=True)
        model = place.model(model)
        training.append(place.training())
    with counting("testing", "prompts", quiet=quiet) as watch:
        results = tested(model.eval(), tables["test"], plan, watch)
    rows = {name: len(table) for name, table in tables.items()}
    with result_folder(out, plan) as (fresh, record):
        model.save_pretrained(fresh)
        record |= {"rows": rows, "training": training, "reading": results}
        remember(fresh, texts_learned(tables, before) if stages else before, before)
    shutil.rmtree(work, ignore_errors=True)
    return ReadingOutcome(out, model, results, rows, training)


def read_parts(
    plan: ReadingPlan, learned: frozenset[str] = frozenset(), say: Say = lambda line: None
) -> dict[str, Table]:
    """Training and test rows, no text in both.

    Args:
        plan: Of the run.
        learned: Hashes of what its model has learned from before, as in `divide`.
        say: Told how many rows those are.

    Raises:
        InputError: When the data cannot be read, or has no labels to answer with.
    """
    columns = plan.columns.model_dump()

    def table_of(source: str, kind: str | None = None) -> Table:
        if plan.prompt is None:
            return documents(source, text=plan.columns.text)
        ways = templates_of(plan.prompt, plan.answers)
        if not needs_labels(ways):
            return read(source, **columns, labelled=False)
        found = read(source, **{**columns, "task": columns["task"] or task_of(ways) or kind})
        if found.labels is None:
            raise InputError(f"{source} has no labels, so there is nothing to answer")
        return found

    data = table_of(plan.data)
    named = {} if plan.test_data is None else {"test": table_of(plan.test_data, data.kind)}
    if data.labels is not None:
        named = {part: table.with_labels_of(data.label_names) for part, table in named.items()}
    shares = {} if named else {"test": plan.test_share}
    return divide(data, named, shares, plan.seed, learned, say)


def lessons_of(model: LessenGenerator, table: Table, plan: ReadingPlan) -> list[Lesson]:
    """What is read and what is to be written after it.

    Raises:
        InputError: When no text is long enough, or one of a few answers is too long.
    """
    lessons: list[Lesson] = []
    if plan.prompt is None:
        most = model.config.facts().max_tokens
        whole = min(plan.prompting.prompt_tokens + plan.prompting.new_tokens, most)
        for row in encode(model.tokenizer, table.texts, WHOLE):
            for start in range(0, len(row.ids), whole):
                piece = row.ids[start : start + whole]
                if start and len(piece) < whole:
                    break  # what is left of a document says little; a short document is taken as it is
                if (ends := min(plan.prompting.new_tokens, len(piece) // 2)) > 0:
                    lessons.append(Lesson(piece[:-ends], piece[-ends:]))
    else:
        for way in _ways(plan, table):
            asked = prompted(table, way)
            known = {text: _ids(model, text, way, plan) for text in (*asked.answers, *(asked.targets or []))}
            room = _room(model, plan, max(map(len, known.values()), default=1))
            prompts = encode_prompts(model.tokenizer, way, table.texts, room)
            pairs = zip(prompts, asked.targets or [], strict=True)
            lessons += [Lesson(row.ids, known[text]) for row, text in pairs]
    if not lessons:
        raise InputError(f"{table.name}: no text is long enough to learn from")
    return lessons


def tested(model: LessenGenerator, table: Table, plan: ReadingPlan, watch: Watch) -> list[dict[str, Any]]:
    """The model on test rows with all tokens, and at the usual speed-ups and the one trained for."""
    profile = model.config.retention_profile()
    trained = {} if profile is None or profile.trained_at is None else {round(profile.trained_at, 2)}
    points: dict[float, Point] = {1.0: FULL}
    for speedup in sorted({*TESTED, *trained} if profile is not None else ()):
        try:
            points[speedup] = model.point_at(speedup)
        except PlanError:
            break
    longest = plan.prompting.prompt_tokens
    if plan.prompt is not None:
        ways = _ways(plan, table)
        told = adding(watch, len(ways) * len(points) * len(table))
        asked: dict[str, Any] = {"max_tokens": longest, "told": told}
        return [
            {"speedup": speedup, **evaluate_answers(model, table, way, point, **asked).as_dict()}
            for way in ways
            for speedup, point in points.items()
        ]
    lessons = lessons_of(model, table, plan)[:MOST_TESTED]
    prompts, answers = [each.prompt for each in lessons], [each.answer for each in lessons]
    told, lines = adding(watch, len(points) * len(prompts)), []
    for speedup, point in points.items():
        scores = torch.cat(score_own(model.transformer, prompts, answers, point, told=told))
        lines.append(
            {
                "speedup": speedup,
                "macs_ratio": round(ratio_at(model.transformer, point, [len(ids) for ids in prompts]), 4),
                "loss": round(-float(scores.double().mean()), 6),
                "tokens": len(scores),
            }
        )
    return lines


def _ways(plan: ReadingPlan, table: Table) -> tuple[Template, ...]:
    """How these rows are asked; in no way where documents are continued."""
    return () if plan.prompt is None else for_rows(templates_of(plan.prompt, plan.answers), table)


def _ids(model: LessenGenerator, text: str, way: Template, plan: ReadingPlan) -> list[int]:
    """Tokens of what is to be written, and what ends it where it is not one of a few answers.

    Of a text that is too long the first ones, and no end: it is not to be learned that it may end there.

    Raises:
        InputError: When one of a few answers is too long: it is compared whole.
    """
    ids = answer_ids(model.tokenizer, text, model.transformer)
    most = plan.prompting.new_tokens
    if way.writes == "answer" and len(ids) > most:
        raise InputError(
            f"the answer {text[:40]!r} has {len(ids)} tokens, and --new-tokens is {most}; raise it, or give "
            "shorter --answers"
        )
    end = model.tokenizer.eos_token_id if model.tokenizer is not None else None
    if model.transformer.decoder is None and way.writes != "answer" and end is not None:
        ids = [*ids, end]
    return ids[:most]


def _room(model: LessenGenerator, plan: ReadingPlan, longest: int) -> int:
    """Tokens of a prompt at most; where it is continued, the answer needs positions too."""
    return min(plan.prompting.prompt_tokens, room_of(model.transformer, longest))


def _asked(model: LessenGenerator, table: Table, plan: ReadingPlan) -> Table:
    """Texts such as the model reads, to measure on how attention falls."""
    texts: Sequence[Any] = table.texts
    if plan.prompt is not None:
        room = _room(model, plan, 1)
        ways = _ways(plan, table)
        texts = [prompt for way in ways for prompt in fitted(model.tokenizer, way, table.texts, room)]
    return Table(table.name, list(texts), None, None, [])
