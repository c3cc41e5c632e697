"""`lessen calibrate` of a classifier: its rows, and what came of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lessen.cli.output import say
from lessen.cli.own_rows import read_again, rows_of_split


def calibrate_classifier(
    folder: Path,
    rows: Any,
    asked: Any,
    *,
    made: Path,
    place: Path,
    precision: Any,
    reference: str | None,
    draws: tuple[int, int] | None,
) -> tuple[Any, dict[str, Any]]:
    """Calibrate the classifier in a folder: what came of it, and as `--json` prints it.

    Args:
        folder: Where it is, for now.
        rows: A `Table`, or None for those kept aside when it was made.
        asked: What is to be promised.
        made: Where `compress` put it.
        place: Where it will be.
        precision: To run in; as stored if None.
        reference: A model to measure losses against; its own full depth if None.
        draws: How many draws of half the rows to try the procedure on, and their seed.
    """
    from lessen.card import write_card
    from lessen.certificate import one_digest
    from lessen.promise import classifiers
    from lessen.promise.outputs import task_of
    from lessen.promise.resplits import resplit
    from lessen.promise.rows import rows_for

    hashed = reference is not None and Path(reference).is_dir()
    reference_weights = one_digest(Path(reference)) if reference is not None and hashed else None
    again = partial(read_again, rows_of_split, made)
    loaded, kept, dropped = rows_for(folder, rows, reference=reference, precision=precision, again=again)
    if dropped:
        say(f"{dropped:,} rows were left out: repeated, or seen by training or the making of exit rules")
    outcome = classifiers.calibrate_classifier(
        folder,
        loaded,
        kept,
        asked,
        reference=reference or "full depth",
        reference_weights=reference_weights,
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
