"""A step with a cache is the whole pass, token for token: fp64 to 1e-9, fp32 to 1e-4 of the largest logit."""

import random
from pathlib import Path

import pytest
import torch
from conftest import ragged_ids, tiny_generator

import lessen
from lessen.errors import PlanError
from lessen.model.rows import following, pack
from lessen.plan import Point
from lessen.runtime.cache import KeyValueCache
from lessen.runtime.engine import elimination_of

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
LENGTHS = [1, 40, 7, 7, 23]


def transformer(family: str, folder: Path, dtype: torch.dtype = torch.float64):
    tiny_generator(family).save_pretrained(folder)
    return lessen.load(folder).to(dtype).transformer


def whole(model, sequences):
    """Logits of every token of each row, without a cache."""
    found = []
    for sequence in sequences:
        hidden, _ = model(*pack([sequence]))
        found.append(model.next_token(hidden))
    return found


def pieces(sequences, cache, takes):
    """The next `takes[row]` tokens of each row, as one ragged batch."""
    begins = [cache.next_position(row) for row in range(len(sequences))]
    going = [row for row, count in enumerate(takes) if count]
    ids, rows = pack([sequences[row][begins[row] : begins[row] + takes[row]] for row in going])
    named = type(rows)(rows.lengths, tuple(going[place] for place in rows.original), rows.device)
    return ids, following(named, begins)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_any_way_of_cutting_rows_gives_the_same_logits(generator, dtype, tmp_path) -> None:
    model, sequences = transformer(generator, tmp_path, dtype), ragged_ids(LENGTHS)
    expected, draw = whole(model, sequences), random.Random(0)
    cache = KeyValueCache(model, len(sequences), max(LENGTHS))
    done = [0] * len(sequences)
    while done != LENGTHS:
        takes = [min(draw.choice([0, 1, 1, 2, 9]), n - d) for n, d in zip(LENGTHS, done, strict=True)]
        if not any(takes):
            continue
        ids, rows = pieces(sequences, cache, takes)
        hidden, _ = model(ids, rows, memory=cache.memory)
        parts = model.next_token(hidden).split(rows.lengths)
        for row, logits in zip(rows.original, parts, strict=True):
            known = expected[row][done[row] : done[row] + takes[row]]
            assert (logits - known).abs().max() <= TOLERANCE[dtype] * expected[row].abs().max()
            done[row] += takes[row]
        assert all(layer.lengths == done and not any(layer.gone) for layer in cache.layers)


@torch.no_grad()
def test_what_was_forgotten_leaves_no_trace(generator, tmp_path) -> None:
    model = transformer(generator, tmp_path)
    draft, final = ragged_ids([12, 12])
    cache = KeyValueCache(model, 1, 12)
    model(*pack([draft]), memory=cache.memory)
    final[:5] = draft[:5]
    cache.truncate(0, 5)
    assert [layer.lengths for layer in cache.layers] == [[5]] * len(cache.layers)
    for layer in cache.layers:
        layer.keys[:, :, 5:] = layer.values[:, :, 5:] = float("nan")
    _, rows = pack([final[5:]])
    hidden, _ = model(final[5:], following(rows, [5]), memory=cache.memory)
    expected = whole(model, [final])[0][5:]
    assert (model.next_token(hidden) - expected).abs().max() <= 1e-9 * expected.abs().max()


@torch.no_grad()
def test_layers_may_lag_behind_others(tmp_path) -> None:
    """The first layers run ahead token by token; the rest follow with all that waited (waterfall queues)."""
    model = transformer("llama-grouped", tmp_path)
    (sequence,) = ragged_ids([20])
    cache, waiting = KeyValueCache(model, 1, 20), []
    expected = whole(model, [sequence])[0]
    for place, token in enumerate(sequence):
        _, rows = pack([token[None]])
        rows = following(rows, [place])
        hidden, _ = model.stack(
            model.embeddings(token[None], rows), rows, memory=cache.memory, layers=range(1)
        )
        waiting.append(hidden)
        if place % 6 == 5 or place == 19:
            _, rows = pack([torch.zeros(len(waiting))])
            rows = following(rows, [place + 1 - len(waiting)])
            late, _ = model.stack(torch.cat(waiting), rows, memory=cache.memory, layers=range(1, 3))
            known = expected[place + 1 - len(waiting) : place + 1]
            assert (model.next_token(late) - known).abs().max() <= 1e-9 * expected.abs().max()
            waiting = []
        assert cache.layers[0].lengths == [place + 1]
        assert cache.layers[1].lengths == cache.layers[2].lengths == [place + 1 - len(waiting)]


@torch.no_grad()
def test_prompt_tokens_that_left_are_in_no_later_layer(tmp_path) -> None:
    """Decoding after elimination in the prompt equals one pass in which the same prompt tokens leave."""
    model = transformer("llama-grouped", tmp_path)
    prompts, point = ragged_ids([20, 9]), Point(name="half", retention=(0.8, 0.5, 0.5))
    cache = KeyValueCache(model, 2, 21)
    ids, rows = pack(prompts)
    eliminate = elimination_of(point, model, ids, rows)
    model(ids, rows, None, None, eliminate, memory=cache.memory)
    assert [layer.lengths[0] for layer in cache.layers] == [20, 16, 10]
    assert [layer.seen(0) for layer in cache.layers] == [20, 20, 20]
    after = [20, 9]
    token = torch.tensor([7, 8])
    step = cache.layout({0: 1, 1: 1})
    assert step.positions.tolist() == after
    hidden, _ = model(token, step, memory=cache.memory)
    for row in range(2):
        layouts = dict(eliminate.kept)
        expected = _with_survivors(model, prompts[row], token[row], row, layouts)
        assert (hidden[row] - expected).abs().max() <= 1e-9 * expected.abs().max()


def _with_survivors(model, prompt, token, row, layouts):
    """Without a cache: the row with one more token, prompt tokens taken out after the layers they left in."""
    from lessen.model.rows import Rows

    places = list(range(len(prompt) + 1))
    ids, rows = pack([torch.cat([prompt, token[None]])])
    hidden = model.embeddings(ids, rows)
    for number in range(1, len(model.layers) + 1):
        hidden, _ = model.stack(hidden, rows, layers=range(number - 1, number))
        if number in layouts:
            layout = layouts[number]
            start = sum(layout.lengths[: layout.original.index(row)])
            stay = layout.kept[start : start + layout.lengths[layout.original.index(row)]].tolist()
            stay = [*stay, len(prompt)]
            hidden = hidden[[places.index(place) for place in stay]]
            places = stay
            kept = torch.tensor(stay)
            rows = Rows((len(stay),), (0,), ids.device, (len(prompt) + 1,), kept)
    return hidden[-1]


@torch.no_grad()
def test_no_row_outgrows_the_cache(tmp_path) -> None:
    model = transformer("gpt2", tmp_path)
    cache = KeyValueCache(model, 1, 3)
    with pytest.raises(PlanError, match="room for 3 tokens of a row, not for 4"):
        model(*pack(ragged_ids([4])), memory=cache.memory)


def test_encoders_have_no_cache(tiny_classifier) -> None:
    with pytest.raises(PlanError, match="causal"):
        KeyValueCache(tiny_classifier.transformer, 1, 3)
