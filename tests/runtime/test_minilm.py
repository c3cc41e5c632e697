"""Real MiniLM: awkward batches agree with their rows one by one, and the full depth with Hugging Face."""

import pytest
import torch
from transformers import AutoModel

import lessen
from lessen.builtin import model_folder
from lessen.model.rows import Rows
from lessen.plan import FULL, ExitRule, Point
from lessen.runtime.engine import run
from lessen.runtime.text import collate, encode
from lessen.tokens.elimination import Elimination

LENGTHS = [0, 1, 1, 2, 3, 5, 8, 8, 8, 13, 21, 34, 55, 89, 144, 233, 377, 600]
WORDS = ("the", "film", "is", "slow", "and", "moving", "with", "great", "acting", "but", "no", "plot")


@pytest.fixture(scope="module")
def model() -> lessen.LessenForSequenceClassification:
    made = lessen.with_exits(lessen.load("builtin:minilm-l6"), labels=["a", "b", "c"], seed=1)
    for head in made.transformer.exits.values():
        torch.nn.init.normal_(head.output.weight, std=0.3, generator=torch.Generator().manual_seed(2))
    return made


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [" ".join(WORDS[(i + j) % len(WORDS)] for j in range(n)) for i, n in enumerate(LENGTHS)]


RULES = [
    FULL,
    Point(name="entropy", exits=ExitRule(criterion="normalised_entropy", threshold=0.6)),
    Point(name="margin", exits=ExitRule(criterion="margin", thresholds={2: 0.2, 4: 0.1})),
    Point(name="patience", exits=ExitRule(criterion="patience", threshold=2)),
]


@pytest.mark.parametrize("point", RULES, ids=lambda p: p.name)
def test_a_batch_agrees_with_its_rows_one_by_one(model, texts: list[str], point: Point) -> None:
    encoded = encode(model.tokenizer, texts, 512)
    assert {len(e.ids) for e in encoded} >= {2, 512}
    together = run(model.transformer, *collate(encoded, model.device), point)
    alone = [run(model.transformer, *collate([row], model.device), point) for row in encoded]
    assert together.layers.tolist() == [answer.layers.item() for answer in alone]
    scale = together.logits.abs().max()
    for row, answer in enumerate(alone):
        assert (together.logits[row] - answer.logits[0]).abs().max() <= 1e-5 * scale
    if point is not FULL:
        assert len(set(together.layers.tolist())) > 1


def test_64_rows_in_any_order(model, texts: list[str]) -> None:
    encoded = (encode(model.tokenizer, texts[:12], 512) * 6)[:64]
    point = RULES[1]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0)).tolist()
    forward = run(model.transformer, *collate(encoded, model.device), point)
    shuffled = run(model.transformer, *collate([encoded[i] for i in order], model.device), point)
    assert shuffled.layers.tolist() == [forward.layers[i].item() for i in order]
    assert torch.allclose(
        shuffled.logits, forward.logits[order], atol=1e-5 * float(forward.logits.abs().max())
    )


def test_full_depth_equals_hugging_face(model, texts: list[str]) -> None:
    theirs = AutoModel.from_pretrained(model_folder("minilm-l6")).eval()
    batch = model.tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="pt")
    with torch.no_grad():
        hidden = theirs(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    head = model.transformer.exits["6"]
    with torch.no_grad():
        expected = head.output((hidden * mask).sum(1) / mask.sum(1))
    found = run(model.transformer, *collate(encode(model.tokenizer, texts, 512), model.device)).logits
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_in_bfloat16_a_batch_and_its_rows_agree_to_its_precision(texts: list[str]) -> None:
    """8 bits of mantissa through six layers: a hundredth of the largest logit."""
    half = lessen.with_exits(
        lessen.load("builtin:minilm-l6", precision="bfloat16"), labels=["a", "b"], seed=1
    )
    encoded = encode(half.tokenizer, texts, 512)
    together = run(half.transformer, *collate(encoded, half.device)).logits
    alone = torch.cat([run(half.transformer, *collate([row], half.device)).logits for row in encoded])
    assert (together - alone).abs().max() <= 1e-2 * together.abs().max()


def test_bfloat16_by_one_load_option(texts: list[str]) -> None:
    half, full = (lessen.load("builtin:minilm-l6", precision=p) for p in ("bfloat16", "float32"))
    assert next(half.parameters()).dtype == torch.bfloat16
    similarity = (half.embed(texts) * full.embed(texts)).sum(-1)
    assert similarity.min() > 0.99


def test_tokens_kept_in_bfloat16_are_nearly_those_kept_in_float32(texts: list[str]) -> None:
    """Latency-adjustable page, 1.12, test 14: at least 95 % of the survivors, layer by layer."""
    shares, kept = (0.9, 0.8, 0.65, 0.5, 0.35, 0.2), {}
    for precision in ("float32", "bfloat16"):
        model = lessen.load("builtin:minilm-l6", precision=precision)
        ids, rows, segments = collate(encode(model.tokenizer, texts, 512), model.device)
        elimination = Elimination(shares)
        with torch.no_grad():
            model.transformer(ids, rows, segments, None, elimination)
        kept[precision] = [
            {(row, place) for row, place in zip(_row_of_each(left), left.kept.tolist(), strict=True)}
            for _, left in elimination.kept
        ]
    for exact, rounded in zip(kept["float32"], kept["bfloat16"], strict=True):
        assert len(exact & rounded) >= 0.95 * len(exact)


def _row_of_each(rows: Rows) -> list[int]:
    """The caller's row of each token left."""
    return [row for row, length in zip(rows.original, rows.lengths, strict=True) for _ in range(length)]
