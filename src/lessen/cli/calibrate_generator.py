"""`lessen calibrate` of a generator: its prompts, and what came of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lessen.cli.output import say
from lessen.cli.own_rows import documents_of_split, read_again


def calibrate_generator(
    folder: Path,
    text: Any,
    asked: Any,
    *,
    made: Path,
    place: Path,
    precision: Any,
    draws: tuple[int, int] | None,
) -> tuple[Any, dict[str, Any], Any]:
    """Calibrate the generator in a folder: what came of it, that as `--json` prints it, and the model.

    Args:
        folder: Where it is, for now.
        text: `Documents`, or None for those kept aside when it was made.
        asked: What is to be promised.
        made: Where `compress` put it.
        place: Where it will be.
        precision: To run in; as stored if None.
        draws: How many draws of half the prompts to try the procedure on, and their seed.
    """
    from lessen.card import write_card
    from lessen.progress import counting
    from lessen.promise import generators, prompts
    from lessen.promise.language import Decoder
    from lessen.promise.resplits import resplit_prompts
    from lessen.systems.working import work_of

    again = partial(read_again, documents_of_split, made)
    with counting("continuing prompts", "prompts") as watch:
        loaded, kept, dropped = prompts.traces_for(folder, text, precision, watch, again, work_of(place))
    if dropped:
        say(f"{dropped:,} documents were left out: repeated, or seen by training or the making of exit rules")
    outcome = generators.calibrate_generator(folder, loaded, kept, asked, dropped=dropped)
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
