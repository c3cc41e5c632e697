"""Which rows are for what: parts that share no text, and none to judge by that the model has learned from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lessen.data.reading import read
from lessen.data.splits import split, without, without_keys, without_repeats
from lessen.data.table import Table
from lessen.errors import InputError
from lessen.history import forgotten, learned_by
from lessen.promise.settle import FEWEST_ROWS
from lessen.systems.planning import CompressionPlan
from lessen.systems.working import Say

PARTS = ("train", "selection", "tune", "calibration", "test")
"""What rows are for, as `PURPOSES` says; besides, to learn from, and to test on."""

PURPOSES = {
    "selection": "select steps on",
    "tune": "make exit rules from",
    "calibration": "test promises on",
}
"""Of parts that need a number of rows to be of use."""

CLEANED = ("test", "calibration", "tune")
"""Parts that may come from files of their own; none keeps a text of one before it."""


def known_to(model: str, say: Callable[[str], object]) -> frozenset[str]:
    """Hashes of what a model has learned from; `say` is told if its folder has lost them.

    Raises:
        ArtefactError: When the file that holds them is damaged.
    """
    if forgotten(model):
        say(f"{model} was trained by lessen, but what it learned from is not in its folder any more: any of")
        say("these rows may be known to it; keep calibration.safetensors or learned.safetensors beside it")
    return learned_by(model)


def divide(
    data: Table,
    named: Mapping[str, Table],
    shares: Mapping[str, float],
    seed: int,
    learned: frozenset[str] = frozenset(),
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Table]:
    """Parts of the data: those named by files of their own, shares for the others, and the rest to train on.

    Args:
        data: What is cut.
        named: Parts that have files of their own; their texts are not trained on.
        shares: Of the data, for each other part but `train`.
        seed: Of the draw.
        learned: Hashes of the texts the model has learned from: they may be trained on again, and get into
            no other part.
        say: Told how many those are.

    Raises:
        InputError: When nothing is left for a part.
    """
    parts: dict[str, Table] = {}
    for name, table in named.items():
        parts[name], known = without_keys(table, learned)
        if not len(parts[name]) and known:
            raise InputError(
                f"{table.name}: the model has learned from all of it; name other data for {name}"
            )
        if known:
            say(f"{known:,} of {table.name} are left out of {name}: the model has learned from them")
    data, _ = without(data, named.values())
    fresh, known = without_keys(data, learned)
    if known:
        say(f"{known:,} of {data.name} the model has learned from: they are trained on again, none judges it")
        parts |= _around(data, fresh, shares, seed)
    else:
        parts |= split(data, {"train": _rest(shares), **shares}, seed)
    for place, name in enumerate(CLEANED):
        if name in parts:
            parts[name], _ = without(parts[name], [parts[each] for each in CLEANED[:place] if each in parts])
    return parts


def _rest(shares: Mapping[str, float]) -> float:
    rest = 1.0  # one by one, as plans of before were split: the sum may differ in its last bit, and rows then
    for share in shares.values():
        rest -= share
    return rest


def _around(data: Table, fresh: Table, shares: Mapping[str, float], seed: int) -> dict[str, Table]:
    """As `split`, all but `train` from the fresh rows alone: as many as of all rows, or as there are."""
    parts: dict[str, Table] = {}
    if shares:
        if len(fresh) < len(shares):
            raise InputError(
                f"{data.name}: the model has learned from all but {len(fresh)} of its {len(data):,} rows; "
                f"give it others to be judged by ({', '.join(shares)})"
            )
        scale = min(len(data) / len(fresh), 1 / sum(shares.values()))
        parts = split(fresh, {name: share * scale for name, share in shares.items()}, seed)
    return parts | {"train": without(data, parts.values())[0]}


def read_splits(
    plan: CompressionPlan, learned: frozenset[str] = frozenset(), say: Say = lambda line: None
) -> dict[str, Table]:
    """Training, tuning, calibration and test rows, no text in two of them.

    Args:
        plan: Of the run.
        learned: Hashes of what its model has learned from before, as in `divide`.
        say: Told how many rows those are.

    Raises:
        InputError: When the data cannot be read, or too few rows are left for a part.
    """
    columns = plan.columns.model_dump()
    data = read(plan.data, **columns)
    if data.kind == "single_label_classification" and data.labels and len(set(data.labels)) < 2:
        raise InputError(
            f"{plan.data}: every row ({len(data)}) has label {data.label_names[data.labels[0]]!r}; "
            "classification needs at least two classes"
        )
    named: dict[str, Table] = {}
    shares: dict[str, float] = {}
    for name, source, share in (
        ("tune", plan.tune_data, plan.tune_share),
        ("calibration", plan.calibration_data, plan.calibration_share),
        ("test", plan.test_data, plan.test_share),
    ):
        if source is not None:
            named[name] = read(source, **columns).with_labels_of(data.label_names)
        else:
            shares[name] = share
    if plan.selection_share is not None:
        if data.labels is None:
            raise InputError(f"{plan.data} has no labels, and steps are selected by them")
        shares["selection"] = plan.selection_share
    parts = divide(data, named, shares, plan.seed, learned, say)
    for name, purpose in PURPOSES.items():
        if name in parts and len(parts[name]) < FEWEST_ROWS:
            or_else = "" if name == "selection" else f" or name a file with --{name}-data"
            raise InputError(
                f"{plan.data}: {len(parts[name])} rows are left to {purpose}, at least {FEWEST_ROWS} are "
                f"needed; give more data{or_else}"
            )
    if (texts := len(without_repeats(parts["calibration"]))) < FEWEST_ROWS:
        raise InputError(
            f"{plan.calibration_data or plan.data}: {texts} different texts are left to "
            f"{PURPOSES['calibration']}, at least {FEWEST_ROWS} are needed; give more data or name a file "
            "with --calibration-data"
        )
    if "selection" in parts and len(set(parts["selection"].labels or [])) < 2:
        raise InputError(f"{plan.data}: all rows to select steps on have one label; no step is best by them")
    return {name: parts[name] for name in PARTS if name in parts}
