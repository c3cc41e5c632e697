"""Drop-and-Restore: every token gets exactly one state, and it is the last one it had."""

import dataclasses

import pytest
import torch
from conftest import lively, ragged_ids

import lessen
from lessen.errors import PlanError
from lessen.model.heads import pool
from lessen.model.rows import pack
from lessen.plan import FULL, ExitRule, ExitShape, Point
from lessen.runtime.engine import run
from lessen.tokens.elimination import Elimination, elimination_for, layers_passed
from lessen.tokens.restore import Restoring

SHARES = (0.7, 0.5, 0.2)
LENGTHS = [9, 1, 30, 2, 17, 9]


def test_12_every_token_keeps_its_last_state(tiny_classifier: object) -> None:
    model = lively(tiny_classifier).transformer
    ids, rows = pack(ragged_ids(LENGTHS))
    states: dict[int, torch.Tensor] = {}
    layouts = {}

    def note(layer, hidden, rows):
        states[layer], layouts[layer] = hidden, rows
        return hidden, rows

    elimination = Elimination(SHARES)
    restoring = Restoring(elimination, rows)
    with torch.no_grad():
        hidden, left = model(ids, rows, None, note, restoring)
        restored = restoring.restored(hidden, left)
        states[0], layouts[0] = model.embeddings(ids, rows), rows
    assert restored.shape == (rows.tokens, 32)
    start = 0
    passed = layers_passed(elimination.kept, LENGTHS, [3] * len(LENGTHS))
    for row, length in zip(rows.original, rows.lengths, strict=True):
        for token, depth in enumerate(passed[row]):
            layout = layouts[depth]
            place = layout.original.index(row)
            at = sum(layout.lengths[:place]) + _positions(layout, row).index(token)
            assert torch.equal(restored[start + token], states[depth][at])
        start += length


def _positions(rows, row: int) -> list[int]:
    place = rows.original.index(row)
    start = sum(rows.lengths[:place])
    return rows.positions[start : start + rows.lengths[place]].tolist()


def test_states_carry_gradients(tiny_classifier: object) -> None:
    model = lively(tiny_classifier).transformer
    ids, rows = pack(ragged_ids([12, 5]))
    restoring = Restoring(Elimination(SHARES), rows)
    restoring.restored(*model(ids, rows, None, None, restoring)).square().sum().backward()
    gradient = model.embeddings.token.weight.grad
    assert gradient.isfinite().all()
    assert (gradient[ids].abs().sum(1) > 0).all()


def test_rows_that_left_by_an_exit_are_refused(tiny_classifier: object) -> None:
    """Their last states are not there; zeros in their place would be taken for embeddings."""
    model = lively(tiny_classifier).transformer
    ids, rows = pack(ragged_ids([12, 5, 7]))
    restoring = Restoring(Elimination(SHARES), rows)

    def leave(layer, hidden, rows):
        stay = [layer != 2 or row != 1 for row in rows.original]
        return rows.gather(hidden, stay), rows.select(stay)

    with torch.no_grad():
        hidden, left = model(ids, rows, None, leave, restoring)
    with pytest.raises(PlanError, match="1 of 3 rows left by an exit"):
        restoring.restored(hidden, left)


@pytest.mark.parametrize("shares", [SHARES, (1.0, 0.4, 0.4), (1e-6, 1e-6, 1e-6)])
def test_heads_that_read_the_mean_count_tokens_that_left(tiny_classifier: object, shares: tuple) -> None:
    """At every exit, in mixed batches: the mean over all tokens of the last state each had."""
    exits = [ExitShape(layer=i, pool="mean") for i in (1, 2, 3)]
    model = lively(lessen.with_exits(tiny_classifier, labels=["a", "b"], exits=exits)).transformer
    ids, rows = pack(ragged_ids(LENGTHS))
    for layer in (1, 2, 3):
        stop = dataclasses.replace(rows)
        restoring = Restoring(elimination_for(model.shape, shares), stop)
        seen = []

        def note(number, hidden, left, layer=layer, restoring=restoring, seen=seen):
            if number == layer:
                seen.append((restoring.restored(hidden, left), pool(hidden, left, "mean")))
            return hidden, left

        with torch.no_grad():
            model(ids, rows, None, note, restoring)
        ((states, pooled),) = seen
        assert torch.allclose(pool(states, rows, "mean"), pooled, atol=1e-5)
    point = Point(name="x", retention=shares, exits=ExitRule(criterion="max_probability", threshold=0.7))
    together = run(model, ids, rows, point=point)
    for row, sequence in enumerate(ragged_ids(LENGTHS)):
        alone = run(model, *pack([sequence]), point=point)
        assert alone.layers.item() == together.layers[row].item()
        assert torch.allclose(alone.logits[0], together.logits[row], atol=1e-4)


def test_the_encoder_embeds_with_tokens_gone(tiny_checkpoint: object) -> None:
    model = lessen.load(tiny_checkpoint)
    texts = ["a gripping film about nothing much at all", "dull", "the second half drags on and on"]
    whole = model.embed(texts)
    with pytest.raises(PlanError, match="call measure_profile"):
        model.dial(speedup=2)
    model.measure_profile(texts)
    assert torch.equal(model.dial(speedup=1).embed(texts), whole)
    fast = model.dial(speedup=1.5).embed(texts)
    assert fast.shape == whole.shape
    assert not torch.equal(fast, whole)
    assert torch.nn.functional.cosine_similarity(fast, whole).min() > 0.5
    padded = model.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**padded).last_hidden_state
    mean = torch.stack(
        [one[mask.bool()].mean(0) for one, mask in zip(states, padded["attention_mask"], strict=True)]
    )
    assert torch.allclose(torch.nn.functional.normalize(mean, dim=-1), fast, atol=1e-5)
    with pytest.raises(PlanError, match="has exits"):
        model.use(Point(name="x", exits=ExitRule(criterion="entropy", threshold=0.1)))
    assert torch.equal(model.use(FULL).embed(texts), whole)
