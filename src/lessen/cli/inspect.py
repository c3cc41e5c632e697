"""`lessen inspect`: what a model consists of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lessen.cli.output import Json, emit, show_drafts, table
from lessen.plan import LayerShape

LAYERS_SHOWN = 6
"""Of a Point at which tokens leave; with more layers only the first and last ones."""


def command(
    model: Annotated[str, typer.Argument(help="Model folder, hub name, or builtin:NAME.")],
    tokens: Annotated[int, typer.Option(min=1, help="Input length the MACs are stated for.")] = 128,
    as_json: Json = False,
) -> None:
    """Count parameters, bytes and MACs, and list layers, exits and Points."""
    from lessen.loading import load

    loaded = load(model)
    facts = describe(loaded, model, tokens)
    if as_json:
        emit(facts)
        return
    counts = facts["parameters"]
    print(
        f"{model}: {facts['family']}, {len(facts['layers'])} layers, {counts['total'] / 1e6:.2f}M parameters"
    )
    generates, decoder = "macs_per_token" in facts, ""
    if "decoder_layers" in facts:
        decoder = f"decoder of {len(facts['decoder_layers'])} layers {counts['decoder'] / 1e6:.2f}M, "
    print(
        f"  {'layers' if generates and not decoder else 'encoder'} {counts['encoder'] / 1e6:.2f}M, {decoder}"
        f"embeddings {counts['embeddings'] / 1e6:.2f}M, "
        f"exits {counts['exits'] / 1e6:.4f}M; {facts['bytes'] / 1e6:.1f} MB; "
        f"{facts['macs'] / 1e6:.0f}M MACs for {tokens} tokens"
    )
    if decoder:
        macs, made = facts["macs_per_token"] / 1e6, facts["macs_of_source"] / 1e6
        print(
            f"  it answers: {made:.1f}M MACs to make the input ready for the decoder, then {macs:.1f}M for "
            f"each token; up to {facts['max_tokens']:,} on either side"
        )
    elif generates:
        macs = facts["macs_per_token"] / 1e6
        print(f"  it generates: {macs:.0f}M MACs for one more token; up to {facts['max_tokens']:,} in a row")
    for row in facts.get("language_exits", []):
        sizes = "".join(f", {name} {row[name]:,}" for name in ("rank", "words") if name in row)
        print(
            f"  exit after layer {row['layer']}: {row['kind']}{sizes}; {row['parameters'] / 1e6:.3f}M "
            f"parameters; asking it costs {row['layers_per_token']:.2f} layers"
        )
    print("  " + ", ".join(f"{part} {size / 1e6:.3f} MB" for part, size in facts["bytes_by_part"].items()))
    if facts["embedding_bits"] != 32:
        bits = "1 bit" if facts["embedding_bits"] == 1 else f"{facts['embedding_bits']} bits"
        print(f"  the token table has {bits} for each weight")
    if facts["latent"]:
        print("  binary weights are stored as the real numbers they learn by: this folder is for training")
    if facts["embedding_rank"] is not None:
        print(f"  the token table is a product of rank {facts['embedding_rank']}")
    rows = [(f"{i}", row) for i, row in enumerate(facts["layers"], start=1)]
    rows += [(f"decoder {i}", row) for i, row in enumerate(facts.get("decoder_layers", ()), start=1)]
    products = any("rank" in row for _, row in rows)
    table(
        ["layer", "heads", "ffn", *(["ranks"] if products else []), "keep", "bits", "exit"],
        [
            [
                name,
                row["heads"],
                row["ffn"],
                *([_named(row.get("rank", {}))] if products else []),
                f"{row['keep']:g}",
                f"{row['bits']} x {row['activation_bits']}",
                "yes" if row["exit"] else "",
            ]
            for name, row in rows
        ],
    )
    if (tokens := facts["retention"]) is not None:
        trained = "" if tokens["trained_at"] is None else f", trained for up to {tokens['trained_at']:.3g}x"
        print(
            f"tokens may leave by {tokens['score']} (profile {tokens['family']}{trained}): dial any speed-up "
            f"up to {tokens['most']:.2f}x; latencies fitted for {len(tokens['fits'])} ways of running"
        )
    if generates:
        show_drafts(loaded.config)
    for point in facts["points"]:
        print(f"point {point['name']}: {point['rule']}")


def describe(model: Any, name: str, tokens: int) -> dict[str, Any]:
    """The facts `inspect --json` prints; MACs are those of one row of `tokens` tokens at full depth.

    Of a generator these are the MACs of a prompt, logits of its next token included, and `macs_per_token`
    those of one token more. Of an encoder-decoder model they are the encoder's; `macs_of_source` are those
    of the keys and values its decoder makes of it, and `macs_per_token` those of the decoder's first token.

    `keep` of a layer is the share of tokens that leaves it at the model's own Point; every Point has its own
    `retention`, None where all tokens stay.
    """
    from lessen.artefact import WEIGHTS
    from lessen.hf import LessenModel
    from lessen.measure.size import bytes_by_part
    from lessen.model.macs import decoder_token_macs, matrix_macs, row_macs, source_macs, token_macs
    from lessen.model.transformer import parameter_counts

    facts = model.config.facts()
    shape = model.config.form()
    points = [] if isinstance(model, LessenModel) else list(model.points.values())
    retention = model.point.retention if points else None
    macs = row_macs(facts, shape, model.config.num_labels, tokens)
    generating: dict[str, Any] = {}
    if facts.decoder is not None:
        generating = {
            "decoder_layers": [
                _layer(layer, exit=place in shape.exit_layers)
                for place, layer in enumerate(shape.decoder_layers, start=1)
            ],
            "macs_of_source": source_macs(facts, shape) * tokens,
            "macs_per_token": decoder_token_macs(facts, shape, 0, tokens),
            "language_exits": _early(model),
        }
    elif facts.language_head is not None:
        macs += matrix_macs(facts.hidden_size, facts.vocab_size)
        generating = {"macs_per_token": token_macs(facts, shape, tokens), "language_exits": _early(model)}
    if generating:
        generating["drafts"] = model.config.drafts
    file, parts = Path(name) / WEIGHTS, bytes_by_part(model, model.folder)
    return {
        "family": facts.family,
        "parameters": parameter_counts(model.transformer),
        "bytes": file.stat().st_size if file.is_file() else sum(parts.values()),
        "macs": macs,
        **generating,
        "tokens": tokens,
        "max_tokens": facts.max_tokens,
        "bytes_by_part": parts,
        "embedding_rank": shape.embedding_rank,
        "embedding_bits": shape.embedding_bits,
        "latent": shape.latent is not None,
        "layers": [
            _layer(
                layer,
                exit=place + 1 in shape.exit_layers and not shape.decoder_layers,
                keep=1.0 if retention is None else retention[place],
            )
            for place, layer in enumerate(shape.layers)
        ],
        "retention": _retention(model),
        "labels": model.label_names if shape.exits else [],
        "points": [
            {
                "name": point.name,
                "rule": _rule(point),
                "retention": point.retention,
                "token_score": point.retention and (point.token_score or "mean"),
            }
            for point in points
        ],
    }


def _layer(layer: LayerShape, *, exit: bool, keep: float = 1.0) -> dict[str, Any]:
    """A layer's width and bits, whether there is an exit after it, and the share of tokens that leaves it."""
    ranks = layer.rank.model_dump(exclude_none=True)
    return {
        "heads": len(layer.heads),
        "ffn": layer.intermediate_size,
        "keep": keep,
        "bits": layer.bits,
        "activation_bits": layer.activation_bits,
        "exit": exit,
        **({"rank": ranks} if ranks else {}),
    }


def _retention(model: Any) -> dict[str, Any] | None:
    """How tokens may leave, and speed-ups in MACs; None if no profile was measured."""
    from lessen.runtime.latency_model import read_latency
    from lessen.runtime.retention import most_reached

    profile = model.config.retention_profile()
    if profile is None:
        return None
    latencies = None if model.folder is None else read_latency(model.folder)
    fits = () if latencies is None else latencies.fits
    return {
        "score": profile.score,
        "family": profile.family,
        "trained_at": profile.trained_at,
        "most": most_reached(model.transformer, profile),
        "fits": [fit.model_dump(include={"threads", "precision", "batch", "error"}) for fit in fits],
    }


def _early(model: Any) -> list[dict[str, Any]]:
    """Each language exit, and what asking it costs in layers at the most."""
    from lessen.model.macs import language_head_macs, writing_macs
    from lessen.model.matrices import weights_of

    facts, shape = model.config.facts(), model.config.form()
    layers = writing_macs(facts, shape)
    mean = sum(layers) / len(layers)
    return [
        {
            **exit.model_dump(exclude_none=True),
            "parameters": weights_of(model.transformer.language_exits[str(exit.layer)]),
            "layers_per_token": round(sum(language_head_macs(facts, exit)[:2]) / mean, 3),
        }
        for exit in shape.language_exits
    ]


def _named(ranks: dict[str, int]) -> str:
    return ", ".join(f"{name} {rank}" for name, rank in ranks.items())


def _rule(point: Any) -> str:
    """Where rows leave, which tokens do, and what is promised of it."""
    how = "every layer" if point.exits is None else _exits(point.exits)
    if point.retention is not None:
        how += f", {_tokens(point.retention, point.token_score or 'mean')}"
    given = point.promise
    if given is None or given.epsilon is None:
        return how
    return f"{how} ({given.kind}, max {given.loss or 'drop'} {given.epsilon:g})"


def _exits(rule: Any) -> str:
    how = (
        f"threshold {rule.threshold:g}"
        if rule.threshold is not None
        else ", ".join(f"{layer}: {value:.4g}" for layer, value in rule.thresholds.items())
    )
    if rule.decay is not None:
        how += f", decaying by {rule.decay.rate:g} over {rule.decay.tokens} tokens"
    return f"{rule.criterion} {how}"


def _tokens(retention: Sequence[float], score: str) -> str:
    """Shares of all layers, or of the first and last few."""
    shares = ["<1%" if share < 0.01 else f"{100 * share:.0f}%" for share in retention]
    if len(shares) > LAYERS_SHOWN:
        shares = [*shares[: LAYERS_SHOWN // 2], "...", *shares[-LAYERS_SHOWN // 2 :]]
    return f"keeps {', '.join(shares)} of the tokens, by {score}"
