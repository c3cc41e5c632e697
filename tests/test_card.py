"""The model card says what the folder's files say, and nothing else."""

import json
from pathlib import Path

from conftest import early_generator

import lessen
from lessen.card import card_of, write_card
from lessen.config import LessenConfig
from lessen.model.architecture import Architecture
from lessen.plan import ExitShape, dense_shape

RULE = {"criterion": "entropy", "threshold": 0.2}
CONFIG = {
    "point": "drop-2%",
    "points": [{"name": "drop-2%", "exits": RULE}, {"name": "drop-1%", "exits": RULE}],
    "id2label": {"0": "bad", "1": "good"},
}
PLAN = {"model": "acme/bert", "system": "early-exit", "data": "reviews.csv"}
POINT = {"name": "full", "metric": "accuracy", "value": 0.9, "mean_layers": 6.0, "macs_ratio": 1.0}
TRAINING = {
    "rows": {"test": 1200},
    "test": [POINT, *(POINT | {"name": name, "mean_layers": 2.5} for name in ("drop-2%", "drop-1%", "gone"))],
    "rules": {
        "drop-2%": {"exits": RULE},
        "drop-1%": {"exits": RULE | {"threshold": 0.1}},
        "gone": {"exits": RULE},
    },
}


def folder_with(place: Path, **files: object) -> Path:
    for name, content in files.items():
        (place / f"{name}.json").write_text(json.dumps(content))
    return place


def test_what_the_files_say(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, config=CONFIG, plan=PLAN, training=TRAINING)
    write_card(folder)
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: lessen\n")
    assert "base_model: acme/bert" in card
    assert "| drop-2% | 0.9000 | 2.50 | 1.00x |" in card
    assert "1,200 rows that nothing was chosen on" in card
    assert "gone" not in card, "a Point that no longer exists"
    assert "drop-1%" not in card, "a Point whose rule was changed after it was measured"
    assert "Nothing is certified" in card
    assert "Labels: `bad`, `good`." in card


def test_points_that_take_tokens(tmp_path: Path) -> None:
    shares = {"retention": [0.8, 0.5], "token_score": "mean"}
    points = [{"name": "drop-2%", **shares}, {"name": "drop-1%", **shares, "exits": RULE}]
    config = CONFIG | {"points": points, "profile": {"base": [0.5, 0.3]}}
    rules = {"drop-2%": shares, "drop-1%": shares | {"retention": [0.8, 0.4]}}
    card = card_of(folder_with(tmp_path, config=config, plan=PLAN, training=TRAINING | {"rules": rules}))
    assert "with early exits and tokens that leave on the way" in card
    assert "model.dial(speedup=2)" in card
    assert "| drop-2% |" in card
    assert "| drop-1% |" not in card, "measured with other shares, and without exits"


def test_a_bare_folder_has_a_card_too(tmp_path: Path) -> None:
    assert "Nothing is certified" in card_of(folder_with(tmp_path, config={}))
    undefined = {"test": [POINT | {"value": None}]}
    assert "| full | undefined |" in card_of(folder_with(tmp_path, training=undefined))


def test_a_generator_has_a_card_of_its_own(tmp_path: Path) -> None:
    from conftest import tiny_generator

    import lessen

    tiny_generator("gpt2").save_pretrained(tmp_path / "theirs")
    lessen.load(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "pipeline_tag: text-generation" in card
    assert "`gpt2` family" in card
    assert "generate_text" in card
    assert "early exits" not in card
    assert "predict" not in card


def test_how_large_it_is(tmp_path: Path) -> None:
    facts = Architecture(
        family="bert",
        vocab_size=101,
        hidden_size=32,
        embedding_size=32,
        head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=64,
        num_hidden_layers=2,
        max_position_embeddings=66,
    )
    config = LessenConfig(
        architecture=facts.model_dump(mode="json"),
        shape=dense_shape(2, 4, 64, exits=(ExitShape(layer=2),)).model_dump(mode="json"),
    )
    card = card_of(folder_with(tmp_path, config=config.to_dict(), plan=PLAN))
    layer = 4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 4 * 32
    assert f"{2 * layer / 1e6:.4g}M of them in the encoder: 2 layers of 4 heads and 64 neurons.\n" in card


def test_an_encoder_and_a_generator_with_exits_that_nothing_is_told_about(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    lessen.load(tiny_checkpoint).save_pretrained(tmp_path / "encoder")
    card = (tmp_path / "encoder" / "README.md").read_text()
    assert "An encoder of the `bert` family" in card
    assert "model.embed(" in card
    assert "early exits" not in card
    early_generator(tmp_path / "theirs").save_pretrained(tmp_path / "writer")
    card = (tmp_path / "writer" / "README.md").read_text()
    assert "It has exits after layers 1, 3, and nothing is certified for it" in card
    assert 'mode="direct"' in card
