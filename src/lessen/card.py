"""The model card, `README.md` in a model folder: what the model is, what was measured, what is promised.

Everything in it is read from the folder's own files, so that it can be written again after a calibration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lessen.artefact import CARD, CONFIG, write_text
from lessen.certificate import Certificate, read_certificate, repeated
from lessen.config import LessenConfig
from lessen.model.transformer import Transformer, parameter_counts

LATENT = (
    "Its binary weights are stored as the real numbers they learn by: this folder is for training on, the "
    "one beside it, without `-latent`, for use.\n"
)


def write_card(folder: Path, name: str | None = None) -> None:
    """Write the model card of a folder.

    Args:
        folder: Of the model.
        name: Of the model; the folder's if None.

    Raises:
        ArtefactError: When the certificate is about something else, or the file cannot be written.
    """
    write_text(folder / CARD, card_of(folder, name))


def card_of(folder: Path, name: str | None = None) -> str:
    """The text of the card, in Markdown with the metadata block that model hubs read."""
    config = _read(folder / CONFIG)
    plan, record = _read(folder / "plan.json"), _read(folder / "training.json")
    certificate = read_certificate(folder)
    if "masked_words" in record:
        return _start(name or folder.name, plan, record)
    if plan.get("kind") == "reading":
        return _of_reading(name or folder.name, config, plan, record)
    if (config.get("architecture") or {}).get("language_head") and not plan:
        return _of_generator(config, name or folder.name)
    shape = config.get("shape") or {}
    if not plan and not record and not shape.get("exits"):
        return _of_encoder(config, name or folder.name)
    made = f"A classifier of the `{(config.get('architecture') or {}).get('family', '?')}` family"
    how = "in the form of lessen"
    if plan:
        made = f"`{_public(plan.get('model', '?'))}`"
        how = f"made by lessen (system `{plan.get('system', '?')}`) on `{_public(plan.get('data', '?'))}`"
    parts = [
        _front(plan),
        f"# {name or folder.name}\n",
        f"{made} with early exits{_tokens(config)}, {how}. It answers at point "
        f"`{config.get('point', 'full')}`.\n",
        LATENT if shape.get("latent") else "",
        _sizes(config),
        _table(record, config),
        _promise(certificate),
        _use(config),
    ]
    return "\n".join(part for part in parts if part)


def _start(name: str, plan: dict[str, Any], record: dict[str, Any]) -> str:
    """The card of an encoder that has no task yet."""
    before, after = record["masked_words"]["before"], record["masked_words"]["after"]
    return "\n".join(
        [
            "---\nlibrary_name: lessen\n---\n",
            f"# {name}\n",
            f"`{_public(plan.get('model', 'a model'))}` after it learned to guess masked words of "
            f"`{_public(plan.get('data', '?'))}`, made by lessen (system `{plan.get('system', '?')}`): "
            "an encoder without a task, to train on from.\n",
            f"Of {after['words']:,} words hidden in {record['rows']['test']:,} texts it was not trained on, "
            f"it guesses {100 * after['accuracy']:.1f}% ({100 * before['accuracy']:.1f}% before).\n",
            "## Use\n\n```\nlessen compress PATH --system beexformer --data ...\n```\n",
        ]
    )


def _of_reading(name: str, config: dict[str, Any], plan: dict[str, Any], record: dict[str, Any]) -> str:
    """The card of a generator that may read less of its prompts."""
    answers = config["architecture"].get("num_decoder_layers")
    task = "text2text-generation" if answers else "text-generation"
    lines = [
        f"| {row['speedup']:g}x | {row['macs_ratio']:.2f}x | "
        + (
            f"{row['loss']:.3f} nats a token |"
            if "loss" in row
            else ("undefined" if row["value"] is None else f"{row['value']:.4f}") + f" ({row['prompt']}) |"
        )
        for row in record.get("reading", [])
    ]
    return "\n".join(
        [
            f"---\nlibrary_name: lessen\ntags: [{task}]\n---\n",
            f"# {name}\n",
            f"`{_public(plan['model'])}` trained by lessen (system `{plan['system']}`) on "
            f"`{_public(plan['data'])}` with prompt tokens leaving on the way. Nothing is "
            "certified for it.\n",
            f"Measured on {record['rows']['test']:,} rows it was not trained on, at speed-ups of reading:\n",
            "| speed-up | MACs ratio | what is written |\n|--:|--:|:--|",
            *lines,
            '\n## Use\n\n```python\nimport lessen\nmodel = lessen.load("PATH")\n'
            "model.dial(speedup=2)  # as many prompt tokens leave\n"
            'model.generate_text(["a text"])\n```\n',
        ]
    )


def _of_encoder(config: dict[str, Any], name: str) -> str:
    """The card of an encoder without a task that nothing is told about."""
    family = (config.get("architecture") or {}).get("family", "?")
    return (
        f"---\nlibrary_name: lessen\ntags: [feature-extraction]\n---\n\n# {name}\n\nAn encoder of the "
        f"`{family}` family in the form of lessen. It has no task and runs at full depth. Nothing is "
        "certified for it.\n\n"
        '## Use\n\n```python\nimport lessen\nmodel = lessen.load("PATH")\nmodel.embed(["a text"])\n```\n'
    )


def _of_generator(config: dict[str, Any], name: str) -> str:
    """The card of a model that writes and that nothing is told about."""
    family = config["architecture"].get("family", "?")
    exits = [str(each["layer"]) for each in (config.get("shape") or {}).get("language_exits", [])]
    depth = f"It has exits after layers {', '.join(exits)}" if exits else "It runs at full depth"
    early = ', mode="direct", point=...' if exits else ""
    if config["architecture"].get("num_decoder_layers"):
        return (
            "---\nlibrary_name: lessen\ntags: [text2text-generation]\n---\n\n"
            f"# {name}\n\nA `{family}` encoder-decoder model in the form of lessen. {depth}, and nothing is "
            "certified for it.\n\n"
            '## Use\n\n```python\nimport lessen\nmodel = lessen.load("PATH")\n'
            + ("model.dial(speedup=2)  # as many input tokens leave\n" if config.get("profile") else "")
            + f'model.generate_text(["a text to answer"]{early})\n```\n'
        )
    return (
        "---\nlibrary_name: lessen\ntags: [text-generation]\npipeline_tag: text-generation\n---\n\n"
        f"# {name}\n\nA generator of the `{family}` family in the form of lessen. {depth}, and nothing is "
        "certified for it.\n\n"
        '## Use\n\n```python\nimport lessen\nmodel = lessen.load("PATH")\n'
        f'model.generate_text(["a text to continue"]{early})\n```\n'
    )


def _sizes(config: dict[str, Any]) -> str:
    """Parameters in all and of the layers, and what is left in those."""
    if not config.get("shape") or config.get("base"):  # of exits alone, the other weights are elsewhere
        return ""
    known = LessenConfig.from_dict(config)
    with torch.device("meta"):
        counts = parameter_counts(Transformer(known.facts(), known.form(), known.num_labels))
    where = "layers" if known.facts().causal else "encoder"
    return (
        f"{counts['total'] / 1e6:.4g}M parameters, {counts['encoder'] / 1e6:.4g}M of them in the {where}: "
        f"{known.form().in_words()}.\n"
    )


def _tokens(config: dict[str, Any]) -> str:
    return " and tokens that leave on the way" if config.get("profile") else ""


def _public(source: str) -> str:
    """Where something came from, without the folders of the machine it lay on."""
    return Path(source).name if _is_local(source) else source


def _is_local(source: str) -> bool:
    """Whether a model or data is a file or folder, and no name on a hub or of a package."""
    path = source.startswith(("/", ".", "~")) or "\\" in source or source.count("/") > 1
    return path or source.endswith(".gguf") or Path(source).exists()


def _front(plan: dict[str, Any]) -> str:
    base = str(plan.get("model", ""))
    task = "text-generation" if plan.get("kind") == "language" else "text-classification"
    lines = ["library_name: lessen", f"tags: [early-exit, {task}]"]
    if base and not base.startswith("builtin:") and not _is_local(base):
        lines.append(f"base_model: {base}")
    return "---\n" + "\n".join(lines) + "\n---\n"


def _table(record: dict[str, Any], config: dict[str, Any]) -> str:
    """Full depth and the Points that still do what was measured on the test rows."""
    rules = {point["name"]: does_of(point) for point in config.get("points") or []}
    measured = record.get("rules", {})
    same = {"full", *(name for name, rule in rules.items() if measured.get(name) == rule)}
    rows = [point for point in record.get("test", []) if point["name"] in same]
    if not rows:
        return ""
    count = record.get("rows", {}).get("test")
    unit = "rows" if "macs_ratio" in rows[0] else "prompts"
    lines = [
        f"Measured on {count:,} {unit} that nothing was chosen on:\n" if count else "",
        f"| point | {rows[0]['metric']} | mean layers |{' MACs ratio |' if 'macs_ratio' in rows[0] else ''}",
        "|:--|--:|--:|" + ("--:|" if "macs_ratio" in rows[0] else ""),
        *(_line(row) for row in rows),
    ]
    return "\n".join(lines) + "\n"


def does_of(point: dict[str, Any]) -> dict[str, Any]:
    """Of a Point in JSON, the fields that answers depend on."""
    return {key: point[key] for key in ("exits", "retention", "token_score", "precision") if key in point}


def _promise(certificate: Certificate | None) -> str:
    if certificate is None:
        return "Nothing is certified for this model.\n"
    sentences = "\n".join(f"* {certificate.sentence(point)}" for point in certificate.points)
    if warning := repeated(certificate.attempt):
        sentences += f"\n\n{warning}"
    return (
        f"## Promise\n\n{sentences}\n\n"
        "This is about the average over texts drawn like the calibration rows, in "
        f"{certificate.precision}. It says nothing about a single text, nor about texts of another kind. "
        "`certificate.json` holds everything needed to check it.\n"
    )


def _use(config: dict[str, Any]) -> str:
    if (config.get("architecture") or {}).get("language_head"):
        return '## Use\n\n```python\nimport lessen\nmodel = lessen.load("PATH")\n```\n'
    names = ", ".join(f"`{name}`" for name in (config.get("id2label") or {}).values())
    return (
        '## Use\n\n```python\nimport lessen\nmodel = lessen.load("PATH")\n'
        'model.predict(["a text"])\n'
        + ("model.dial(speedup=2)  # as many tokens leave as that takes\n" if config.get("profile") else "")
        + "```\n"
        + (f"\nLabels: {names}.\n" if names else "")
    )


def _line(row: dict[str, Any]) -> str:
    value = "undefined" if row["value"] is None else f"{row['value']:.4f}"
    ratio = f" {row['macs_ratio']:.2f}x |" if "macs_ratio" in row else ""
    return f"| {row['name']} | {value} | {row['mean_layers']:.2f} |{ratio}"


def _read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found if isinstance(found, dict) else {}
