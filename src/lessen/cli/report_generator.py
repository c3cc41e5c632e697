"""`lessen report` of a generator with exits."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lessen.cli.output import emit, percent, say
from lessen.cli.own_rows import documents_of_split
from lessen.errors import InputError

FEWEST_PROMPTS = 10


def report_generator(
    models: list[str],
    out: Path,
    data: str | None,
    text_column: str | None,
    *,
    against: str | None,
    prompts: int,
    rows: int,
    seconds: float,
    with_examples: bool,
    threads: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Write report.html, report.png and report.json; arguments are the command's.

    Raises:
        InputError: When there is more than one model, it has no exits, or too few documents are left.
    """
    import torch

    from lessen.cli.generate import loaded_generator
    from lessen.data.documents import documents
    from lessen.progress import counting
    from lessen.promise.prompts import check_room, prompting_of, unseen
    from lessen.report.generator_facts import Timed, gather_generator
    from lessen.report.page import write_report

    if len(models) > 1:
        raise InputError("a report is about one generator; name one folder")
    if against not in (None, "none", "transformers"):
        raise InputError(f"--against {against}: a generator's report knows transformers, or none")
    if threads is not None:
        torch.set_num_threads(threads)
    folder = Path(models[0])
    model = loaded_generator(models[0])
    if not model.config.form().language_exits:
        raise InputError(
            f"{folder} has no exits that name tokens to report on: give it some with --system self-exit; "
            "what reading less costs it, evaluate and bench say (--speedups)"
        )
    table, about = (
        documents_of_split(folder, "test") if data is None else (documents(data, text=text_column), data)
    )
    table, left_out = unseen(folder, table)
    table = table.take(range(min(prompts, len(table))))
    if len(table) < FEWEST_PROMPTS:
        raise InputError(
            f"{about}: {len(table)} documents are left that the model has not seen, at least "
            f"{FEWEST_PROMPTS} are needed; give others with --data"
        )
    if left_out:
        about += f", without {left_out:,} that the model had seen"
    prompting = prompting_of(folder)
    check_room(model, prompting)
    say(f"{len(table):,} prompts: {about}")
    timed = Timed(against != "none", rows, seconds, torch.get_num_threads(), seed)
    facts = gather_generator(
        folder.resolve().name,
        folder,
        model,
        table,
        about,
        prompting,
        timed,
        with_examples=with_examples,
        watching=partial(counting, unit="prompts", kept=False),
    )
    places = {kind: str(place) for kind, place in write_report(facts, out).items()}
    if as_json:
        emit({"files": places, **facts})
        return
    (found,) = facts["models"]
    own = next(spot for spot in found["points"] if spot["name"] == found["point"])
    print(
        f"{found['name']}: {percent(own['value'])}% of tokens are the full model's own at point "
        f"{own['name']}, with {own['mean_layers']:.2f} of {found['depth']} layers"
    )
    print("\n".join(places.values()))
