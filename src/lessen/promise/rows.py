"""Which rows and models a calibration or an audit works with, and what fits what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open

from lessen.artefact import KEPT
from lessen.certificate import check_kept, keys_of
from lessen.data.splits import without_keys, without_repeats
from lessen.data.table import Table, listed
from lessen.errors import InputError
from lessen.hf import LessenForSequenceClassification
from lessen.history import learned_by, texts_learned
from lessen.loading import load
from lessen.plan import Precision
from lessen.promise.outputs import Kept, outputs_of, settings_of


def keep(
    model: Any,
    tables: dict[str, Table],
    criteria: Sequence[str],
    label_range: float,
    before: frozenset[str] = frozenset(),
) -> Kept:
    """Answers of a model on the `tune` and `calibration` tables, and hashes of what it has learned from.

    That is `before` it was trained on these tables, and from them; see `texts_learned`.
    A text that occurs more than once calibrates once: the tests need rows drawn independently.
    """
    settings = settings_of(model.speeds().values())
    return Kept(
        tune=outputs_of(model, tables["tune"], settings=settings),
        calibration=outputs_of(model, without_repeats(tables["calibration"]), settings=settings),
        seen=texts_learned(tables, before),
        before=before,
        criteria=tuple(criteria),
        label_range=label_range,
        precision=cast(Precision, model.precision),
        subject="",
        pairs=isinstance(tables["train"].texts[0], tuple),
    )


def rows_for(
    folder: Path,
    data: Table | None,
    *,
    reference: str | None = None,
    precision: Precision | None = None,
    again: Callable[[], Table] | None = None,
) -> tuple[LessenForSequenceClassification, Kept, int]:
    """A model, the answers to calibrate it with, and how many rows were left out because they had been seen.

    Args:
        folder: A folder written by `lessen compress`.
        data: New rows; None for those kept with the model.
        reference: A model to measure against, run on the same rows.
        precision: Of the weights; as stored if None.
        again: Reads the rows of the kept answers, where these are another precision's.

    Raises:
        InputError: When there are no kept answers, or they are another precision's or another model's, and no
            data was given.
    """
    model = classifier_of(load(folder, precision=precision, promises=False), folder)
    own = cast(Precision, model.precision)
    kept = kept_in(folder)
    if kept is None:
        raise InputError(f"{folder} has no {KEPT}; only a folder made by `lessen compress` can be calibrated")
    check_kept(folder, kept.subject)
    if data is None:
        if reference is not None:
            raise InputError("--reference needs --data: the kept answers do not include another model's")
        if own == kept.precision:
            return model, kept, 0
        if again is None:
            raise InputError(
                f"the kept answers are those of {kept.precision}; give --data to calibrate in {own}"
            )
        data = again()
    table = fitting(data, model, folder, kept)
    other = None if reference is None else reference_of(reference, model)
    fresh, _ = without_keys(table, kept.seen | set(kept.tune.keys))
    outputs = outputs_of(model, without_repeats(fresh), other, kept.tune.settings)
    return model, replace(kept, calibration=outputs, precision=own), len(table) - len(outputs)


def seen_by(model: str | Path) -> frozenset[str]:
    """Hashes of the texts a model was trained, tuned or calibrated on, as far as its folder tells; none of
    what is no folder."""
    folder = Path(model).expanduser()
    kept = kept_in(folder)
    if kept is None:
        return keys_of(folder) | learned_by(folder)
    return keys_of(folder) | kept.seen | set(kept.tune.keys) | set(kept.calibration.keys)


def kept_in(folder: Path) -> Kept | None:
    """The answers kept in a folder, if there are any."""
    return Kept.load(folder / KEPT) if (folder / KEPT).exists() else None


def trained_on_pairs(model: str | Path) -> bool | None:
    """Whether a model's rows were pairs of texts, by the header of what it keeps; None if it does not say."""
    place = Path(model).expanduser() / KEPT
    if not place.exists():
        return None
    try:
        with safe_open(place, "pt") as file:
            said = (file.metadata() or {}).get("pairs")
    except (OSError, SafetensorError):
        return None  # nothing that is asked of it here needs the rest of the file
    return None if said is None else said == "1"


def fitting(
    table: Table, model: LessenForSequenceClassification, folder: Path, kept: Kept | None = None
) -> Table:
    """A table with its labels numbered as the model's.

    Raises:
        InputError: When it is for another task, has labels the model does not know, or has pairs of texts
            where the model was trained on single ones, or the other way round.
    """
    pairs = bool(table.texts) and isinstance(table.texts[0], tuple)
    if kept is not None and kept.pairs is not None and pairs != kept.pairs:
        kinds = ("pairs of texts", "single texts")
        raise InputError(
            f"{table.name} has {kinds[not pairs]}, {folder} was trained on {kinds[not kept.pairs]}"
        )
    named = table.with_labels_of(model.label_names)
    if named.kind is not None and named.kind != model.problem_type:
        raise InputError(f"{table.name} is for {named.kind}, {folder} was trained for {model.problem_type}")
    return named


def classifier_of(model: Any, folder: Path) -> LessenForSequenceClassification:
    """The model, if it is a classifier or regressor.

    Raises:
        InputError: When it only embeds.
    """
    if not isinstance(model, LessenForSequenceClassification):
        raise InputError(f"{folder} has no classifier to calibrate")
    return model


def reference_of(name: str, model: LessenForSequenceClassification) -> LessenForSequenceClassification:
    """A model whose answers mean the same as those of `model`.

    Raises:
        InputError: When they do not.
    """
    other = load(name)
    if not isinstance(other, LessenForSequenceClassification):
        raise InputError(f"--reference {name} has no classifier")
    labels = [one.label_names for one in (other, model)]
    if other.problem_type != model.problem_type or labels[0] != labels[1]:
        raise InputError(
            f"--reference {name} answers {listed(labels[0])}, the model {listed(labels[1])}; "
            "they must have the same labels in the same order"
        )
    return other
