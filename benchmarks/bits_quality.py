"""Binary weights from scratch: BEExformer beside its float twin, other surrogates, layers, and no exits.

    LESSEN_DATA=/path/to/data python benchmarks/bits_quality.py [--tasks sst2-phrases,trec,movie-reviews]
        [--seeds 0,1,2] [--model beexformer-small]

Every variant has the same rows, steps and rates. The threshold of the fractional-entropy rule is chosen on
tuning rows: the one that saves most layers while no worse there than the same model without exits. Work
stays in `.cache/bits/`; what is there is not made again.
"""

from __future__ import annotations

import argparse
import json
from statistics import mean, stdev
from typing import Any

import torch
from results import CACHE, write_results
from tasks import TASKS, prepare

from lessen.config import LessenConfig
from lessen.data.reading import read
from lessen.depth.criteria import exit_of_every_row
from lessen.families.beexformer import PRESETS
from lessen.hf import LessenModel
from lessen.loading import load
from lessen.measure.evaluation import answers_of_every_exit
from lessen.model.macs import row_macs
from lessen.model.transformer import initialise
from lessen.plan import ExitRule, ExitShape, dense_shape
from lessen.reshaping import in_signs, with_exits
from lessen.runtime.text import encode
from lessen.systems import system_of
from lessen.systems.binarizing import Binarizing, binarized
from lessen.systems.milestone import Milestone
from lessen.train.fine_tuning import fine_tune

THRESHOLDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.1)
"""Of the page's sweep, and 1.1, at which every row leaves at the second exit."""

VARIANTS: dict[str, dict[str, Any]] = {
    "float twin": {"weight_bits": 32},
    "W1A32": {},
    "W1A8": {"activation_bits": 8},
    "W1A1": {"activation_bits": 1},
    "W1A32, ste_clip": {"gradient": "ste_clip"},
    "W1A32, no scale": {"scale": "none"},
    "W1A32, FFN": {},
    "W1A32, deeper exits weigh more": {"objective": "depth_weighted"},
    "W1A32, no exits": {"objective": "last"},
    "float twin, no exits": {"weight_bits": 32, "objective": "last"},
}
"""Changes to the system's recipe. The FFN is as large: two matrices, twice as wide."""


def checkpoint(preset: str, variant: str, labels: list[str], seed: int) -> Any:
    """Random weights, the same for every variant of a seed that has the same layers."""
    torch.manual_seed(seed)
    base = load(f"builtin:{preset}")
    if variant.endswith("FFN"):
        facts = PRESETS[preset]
        facts = facts.model_copy(
            update={"feed_forward": "ffn", "intermediate_size": 2 * facts.intermediate_size}
        )
        shape = dense_shape(facts.num_hidden_layers, facts.num_attention_heads, facts.intermediate_size)
        config = LessenConfig(architecture=facts.model_dump(mode="json"), shape=shape.model_dump(mode="json"))
        tokenizer, base = base.tokenizer, LessenModel(config)
        initialise(base.transformer)
        base.tokenizer = tokenizer
    form = system_of("beexformer").exit
    assert form is not None
    depth = len(base.config.form().layers)
    exits: list[ExitShape] = [form.model_copy(update={"layer": layer}) for layer in range(1, depth + 1)]
    return with_exits(base, exits=exits, labels=labels, seed=seed)


def trained(preset: str, task: str, variant: str, seed: int, changes: dict[str, Any]) -> Any:
    """The packed model, made if it is not there yet."""
    folder = CACHE / "bits" / preset / f"{task}-seed{seed}" / variant.replace(", ", "-").replace(" ", "-")
    train = read(str(prepare(task)["train"]))
    begin = checkpoint(preset, variant, train.label_names or [], seed)
    milestone = Milestone(folder)
    if not milestone.reached():
        own = {"max_tokens": TASKS[task].max_tokens, "seed": seed} | VARIANTS[variant] | changes
        recipe = Binarizing.model_validate(system_of("beexformer").stages[0].model_dump() | own)
        torch.manual_seed(seed)
        model = binarized(begin, recipe)
        record = fine_tune(model, train, recipe, folder / "checkpoints")
        packed = in_signs(model)
        milestone.leave(packed.transformer.state_dict(), packed.config.form(), record)
    return milestone.model(begin)


def answers(model: Any, task: str, part: str) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Answers of every exit `[exits, rows, labels]`, labels, and lengths in tokens."""
    table = read(str(prepare(task)[part])).with_labels_of(model.label_names)
    encoded = encode(model.tokenizer, table.texts, TASKS[task].max_tokens)
    found = torch.as_tensor(answers_of_every_exit(model.eval(), encoded))
    return found, torch.tensor(table.labels), [len(row.ids) for row in encoded]


def exiting(
    model: Any, found: torch.Tensor, labels: torch.Tensor, lengths: list[int], threshold: float
) -> tuple[float, float]:
    """Accuracy and share of MACs left by the fractional-entropy rule, all exits met on the way counted."""
    facts, shape, outputs = model.config.facts(), model.config.form(), model.config.num_labels
    rule = ExitRule(criterion="entropy_plateau", threshold=threshold)
    chosen = exit_of_every_row(rule, shape.exit_layers, list(found))
    right = found.argmax(-1)[chosen, torch.arange(len(labels))] == labels
    spent = sum(
        row_macs(facts, shape, outputs, n, layers=int(e) + 1, heads=range(1, int(e) + 2))
        for n, e in zip(lengths, chosen, strict=True)
    )
    return float(right.float().mean()), spent / sum(row_macs(facts, shape, outputs, n) for n in lengths)


def facts_of(model: Any, task: str) -> dict[str, Any]:
    """Accuracy of every exit, of the rule at every threshold, and the overthinking count, on test rows."""
    tune, test = answers(model, task, "tune"), answers(model, task, "test")
    right = test[0].argmax(-1) == test[1]
    sweep = {
        f"{threshold:g}": {
            "tune": exiting(model, *tune, threshold)[0],
            **dict(zip(("test", "macs"), exiting(model, *test, threshold), strict=True)),
        }
        for threshold in THRESHOLDS
    }
    return {
        "exits": right.float().mean(1).tolist(),
        "tune": float((tune[0][-1].argmax(-1) == tune[1]).float().mean()),
        "overthinking": int((right[:-1].any(0) & ~right[-1]).sum()),
        "rows": right.shape[1],
        "sweep": sweep,
    }


def chosen(facts: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """The sweep's step that saves most among those as good on tuning rows as a model without exits."""
    good = [line for line in facts["sweep"].values() if line["tune"] >= baseline["tune"]]
    line = min(good, key=lambda line: line["macs"], default={"test": facts["exits"][-1], "macs": 1.0})
    return {
        "accuracy": line["test"],
        "macs_saved": 1 - line["macs"],
        "gain": line["test"] - baseline["exits"][-1],
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and deviations over seeds."""
    lines: dict[str, Any] = {}
    for task in dict.fromkeys(run["task"] for run in runs):
        seeds = [run["variants"] for run in runs if run["task"] == task]
        for name in dict.fromkeys(name for variants in seeds for name in variants):
            found = [variants for variants in seeds if name in variants]
            last = [variants[name]["exits"][-1] for variants in found]
            steps = [v[name]["exiting"] for v in found if "exiting" in v[name]]
            lines.setdefault(task, {})[name] = {
                "seeds": len(found),
                "last": mean(last),
                "last_sd": stdev(last) if len(last) > 1 else None,
                "exits": [mean(each) for each in zip(*(v[name]["exits"] for v in found), strict=True)],
                "overthinking": mean(v[name]["overthinking"] for v in found),
                "exiting": {key: mean(step[key] for step in steps) for key in steps[0]} if steps else None,
            }
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="sst2-phrases,trec,movie-reviews")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--variants", default="; ".join(VARIANTS))
    parser.add_argument("--model", default="beexformer-small")
    parser.add_argument("--recipe", default="{}", help="JSON: changes to the recipe of every variant")
    options = parser.parse_args()
    variants = [name.strip() for name in options.variants.split(";")]
    changes = json.loads(options.recipe)
    runs: list[dict[str, Any]] = []
    for seed in map(int, options.seeds.split(",")):
        for task in options.tasks.split(","):
            found: dict[str, Any] = {}
            runs.append({"task": task, "seed": seed, "variants": found})
            for variant in variants:
                model = trained(options.model, task, variant, seed, changes)
                found[variant] = facts_of(model, task)
                print(task, seed, variant, [round(each, 4) for each in found[variant]["exits"]], flush=True)
            for name, facts in found.items():
                baseline = found.get("float twin, no exits" if "float" in name else "W1A32, no exits")
                if baseline is not None and not name.endswith("no exits"):
                    facts["exiting"] = chosen(facts, baseline)
            content = {"model": options.model, "runs": runs, "summary": summary(runs)}
            write_results("bits_quality", content)


if __name__ == "__main__":
    main()
