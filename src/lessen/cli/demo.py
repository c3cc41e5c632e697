"""`lessen demo`: the whole story on a real model and real reviews, with nothing to download."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lessen.cli.output import Json, asked_of, emit, percent, say, table
from lessen.cli.overwriting import check_free
from lessen.records import MOST_SEED

MODEL = "builtin:minilm-l6"
DATA = "builtin:movie-reviews"
EPOCHS = 2.0
MAX_DROP = "2%"
TIMED_ROWS = 48
TIMED_SECONDS = 12.0


def command(
    out: Annotated[Path, typer.Option(help="Folder for the model; reused if it is there.")] = Path("demo"),
    max_drop: Annotated[str, typer.Option(help="Accuracy allowed to be lost against full depth.")] = MAX_DROP,
    seed: Annotated[
        int, typer.Option(min=0, max=MOST_SEED, help="Of the split, the order of rows and new weights.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Give MiniLM early exits on movie reviews, and time it against the dense Hugging Face model.

    Fine-tunes on 65 % of the reviews, certifies how early they may be answered on 20 %, and reports on the
    last 10 %, which nothing else sees. A second run reuses the trained model.
    """
    import random

    import torch

    from lessen.certificate import read_certificate
    from lessen.measure.evaluation import answers_at, result_of
    from lessen.measure.metrics import quality
    from lessen.measure.side_by_side import Contestant, build_rivals, compare
    from lessen.plan import FULL
    from lessen.runtime.text import encode
    from lessen.systems import system_of
    from lessen.systems.dividing import read_splits
    from lessen.systems.planning import plan_for

    plan = plan_for(
        system_of("early-exit"),
        seed=seed,
        recipe={"epochs": EPOCHS},
        model=MODEL,
        data=DATA,
        promise=asked_of([max_drop], "90%", "drop", "certified"),
        tune_share=0.05,
        calibration_share=0.2,
    )
    model, test = _trained(plan, out)
    if test is None:
        test = read_splits(plan)["test"]
    test = test.with_labels_of(model.label_names)
    early = model.points[model.config.point]
    encoded = encode(model.tokenizer, test.texts, model.config.facts().max_tokens)
    points = [FULL] if early == FULL else [FULL, early]
    answers = {point.name: answers_at(model, encoded, point) for point in points}
    results = {
        point.name: result_of(model, encoded, test.labels, point, *answers[point.name]) for point in points
    }
    count = torch.get_num_threads()
    rivals = build_rivals(["torch"], model, count, [])
    dense = quality(rivals["torch"](encoded).double().numpy(), test.labels, model.problem_type)
    say("timing against the dense Hugging Face model, interleaved")
    timed = random.Random(seed).sample(range(len(test)), min(TIMED_ROWS, len(test)))
    contestant = Contestant(
        models={"lessen": model},
        reference=model,
        encoded=[encoded[i] for i in timed],
        labels=None,
        points=points,
        rivals=rivals,
    )
    rows = compare({"demo": contestant}, batch_sizes=[1], thread_count=count, seconds=TIMED_SECONDS)["demo"]
    ms = {row.name if row.kind == "lessen" else "hugging face": row.ms for row in rows}
    logits, layers = answers[early.name]
    certificate = read_certificate(out)
    promised = [certificate.sentence(point) for point in certificate.points] if certificate else []
    full, chosen = results["full"], results[early.name]
    facts = {
        "out": str(out),
        "dense": dense,
        "full": full.value,
        "early": chosen.value,
        "mean_layers": chosen.mean_layers,
        "layers": {str(depth): count for depth, count in chosen.layers.items()},
        "speedup": ms["hugging face"] / ms[early.name],
        "ms": ms,
        "n": len(test),
        "point": early.name,
        "certificate": promised,
    }
    if as_json:
        emit(facts)
        return
    table(
        ["on reviews kept aside", "accuracy", "mean layers", "ms per review", "speed-up"],
        [
            [
                "Hugging Face, dense",
                percent(dense),
                f"{full.mean_layers:.1f}",
                f"{ms['hugging face']:.2f}",
                "1.0x",
            ],
            *(
                [
                    f"lessen, {label}",
                    percent(result.value),
                    f"{result.mean_layers:.1f}",
                    f"{ms[result.name]:.2f}",
                    f"{ms['hugging face'] / ms[result.name]:.1f}x",
                ]
                for label, result in (("full depth", full), ("early exits", chosen))
            ),
        ],
        f"{len(test)} reviews, batch 1, {count} threads",
    )
    _show_sentences(test, logits, layers, model.label_names)
    for sentence in promised or [
        f"Nothing could be certified at {max_drop}: the model answers at full depth."
    ]:
        print(f"\n{sentence}")
    program = Path(sys.argv[0])
    print(f'\nThe model is in {out}. Try:  {program} predict {out} "a gripping film"')


def _trained(plan: Any, out: Path) -> tuple[Any, Any]:
    """The demo's model, from an earlier run of the same plan or trained now; its test rows, if just read."""
    from lessen.artefact import read_json
    from lessen.loading import load
    from lessen.systems import system_of
    from lessen.systems.pipeline import compress
    from lessen.systems.working import begun

    place = out / "plan.json"
    if place.exists() and read_json(place, "name another --out") == plan.model_dump(mode="json"):
        say(f"using the model trained earlier in {out}")
        return load(out), None
    if not begun(out):
        check_free([out], "name another --out")
    say(f"fine-tuning {plan.model} on {plan.data} with an exit after every layer")
    [outcome] = compress(plan, system_of(plan.system), out, say)
    return outcome.model, outcome.test


def _show_sentences(test: Any, logits: Any, layers: list[int], labels: list[str]) -> None:
    order = sorted(range(len(layers)), key=layers.__getitem__)
    for title, picked in (("left first", order[:3]), ("left last", order[-3:])):
        print(f"\n{title}:")
        for place in picked:
            answer = labels[int(logits[place].argmax())]
            text = test.texts[place]
            print(f"  layer {layers[place]}  {answer:8}  {text[:88]}{'…' if len(text) > 88 else ''}")
