"""Mode `spec`: drafts by early exits change the time a text takes, and nothing else.

Greedy tokens are compared in float64, where no two of these models' logits tie. The tests named after a
bug hold what the page saw go wrong elsewhere (self-supervised exits page, 1.7).
"""

import math
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
import torch
from conftest import early_generator, median_rule, prompts_of, rows_of, tiny_generator
from scipy.stats import chi2
from test_direct import LENGTHS, check_queues

from lessen.model.rows import pack
from lessen.plan import ExitRule, Point
from lessen.reshaping import in_few_bits
from lessen.runtime import generation
from lessen.runtime.decoding import Decoding
from lessen.runtime.drafts import Draft, verified
from lessen.runtime.generation import generate
from lessen.runtime.sampling import GREEDY, Sampling, probabilities
from lessen.runtime.waterfall import Waterfall

ALWAYS = ExitRule(criterion="entropy", threshold=99.0)


def wrong(model) -> None:
    """Exits that name the token they find least likely."""
    for head in model.language_exits.values():
        head.output.weight.data.neg_()


def perfect(model) -> None:
    """Layers after the first add nothing, so that its exit says what the last layer does."""
    for block in model.layers[1:]:
        for matrix in (block.attention.output, block.feed_forward.down):
            matrix.weight.data.zero_()
    for head in model.language_exits.values():
        head.norm.load_state_dict(model.final_norm.state_dict())
        head.output.weight.data.copy_(model.vocabulary_matrix)


@torch.no_grad()
@pytest.mark.parametrize("most", [1, 2, 16])
@pytest.mark.parametrize("heads", ["random", "wrong", "perfect"])
def test_greedy_tokens_are_those_of_full_depth(heads: str, most: int, tmp_path: Path) -> None:
    """P8: whatever exits say; texts of several lengths, ended by a token or by `max_new_tokens`."""
    model = early_generator(tmp_path).transformer
    if heads != "random":
        {"wrong": wrong, "perfect": perfect}[heads](model)
    prompts = prompts_of(LENGTHS)
    endless, _ = rows_of(model, prompts, max_new_tokens=13)
    stop = {endless[1][6]}
    for rule in (ALWAYS, median_rule(model)):
        for options in ({"max_new_tokens": 13}, {"max_new_tokens": 13, "stop": stop}, {"max_new_tokens": 2}):
            off, _ = rows_of(model, prompts, **options)
            found, tally = rows_of(model, prompts, decoding=Decoding("spec", rule, most=most), **options)
            assert found == off
            assert [len(text.layers) for text in tally.texts] == [len(tokens) for tokens in off]
            assert all(length <= most for text in tally.texts for length, _ in text.drafts)


@torch.no_grad()
@pytest.mark.parametrize(("family", "kind"), [("gpt2", "tied"), ("gpt_neox", "gate"), ("qwen3", "shortlist")])
def test_other_families_and_heads(family: str, kind: str, tmp_path: Path) -> None:
    model = early_generator(tmp_path, family, kind).transformer
    prompts = prompts_of(LENGTHS)
    off, _ = rows_of(model, prompts, max_new_tokens=15)
    found, tally = rows_of(
        model, prompts, max_new_tokens=15, decoding=Decoding("spec", median_rule(model, 0.7))
    )
    assert found == off
    assert tally.acceptance is not None


@torch.no_grad()
def test_prompts_of_which_tokens_leave_are_answered_alike_in_every_mode(tmp_path: Path) -> None:
    """They are read to their end before anything may wait; drafts then change nothing."""
    model = early_generator(tmp_path).transformer
    prompts = prompts_of([40, 9, 1, 23])
    some = Point(name="some", retention=(0.8, 0.6, 0.4, 0.3, 0.3))
    off, whole = rows_of(model, prompts, max_new_tokens=15, decoding=Decoding(prompts=some))
    assert off != rows_of(model, prompts, max_new_tokens=15)[0]
    for most in (2, 16):
        decoding = Decoding("spec", median_rule(model, 0.7), most=most, prompts=some)
        found, tally = rows_of(model, prompts, max_new_tokens=15, decoding=decoding)
        assert found == off
        assert tally.acceptance is not None
    never = ExitRule(criterion="entropy", threshold=-1.0)
    for kv in ("exact", "propagate"):
        decoding = Decoding("direct", never, kv=kv, prompts=some)
        found, tally = rows_of(model, prompts, max_new_tokens=15, decoding=decoding)
        assert found == off
    longest = max(map(len, prompts))
    plain = rows_of(model, prompts, max_new_tokens=15, decoding=Decoding())[1]
    per_layer = sum(longest - math.ceil(share * longest) for share in (0.8, 0.6, 0.4, 0.3))
    missing = plain.texts[0].macs - whole.texts[0].macs
    assert missing == per_layer * len(off[0]) * whole.costs.pair[0], "tokens that left are not attended to"


@torch.no_grad()
def test_positions_may_be_used_up(tmp_path: Path) -> None:
    """66 positions: drafts never stand beyond them, and the last token needs no position of its own."""
    model = early_generator(tmp_path).transformer
    prompts = prompts_of([66, 63, 50])
    off, _ = rows_of(model, prompts, max_new_tokens=30)
    assert [len(tokens) for tokens in off] == [1, 4, 17]
    assert rows_of(model, prompts, max_new_tokens=30, decoding=Decoding("spec", ALWAYS))[0] == off


@torch.no_grad()
def test_drafts_and_passes_are_counted(tmp_path: Path) -> None:
    """Perfect exits after one layer of five, four drafts a time: 5 tokens for 5 x 1 + 4 layers."""
    model = early_generator(tmp_path).transformer
    perfect(model)
    decoding = Decoding("spec", ExitRule(criterion="entropy", thresholds={1: 99.0}), most=4)
    _, tally = rows_of(model, [[3, 4]], max_new_tokens=10, decoding=decoding)
    assert tally.texts[0].drafts == [(4, 4), (4, 4)]
    assert (tally.acceptance, tally.draft_length) == (1.0, 4.0)
    assert tally.texts[0].layers == [1, 1, 1, 1, 5] * 2
    assert tally.weight_passes == pytest.approx((5 + 4) / 5 / 5)
    wrong(model)
    _, tally = rows_of(model, [[3, 4]], max_new_tokens=10, decoding=decoding)
    assert tally.acceptance == 0
    assert tally.weight_passes > 1


@torch.no_grad()
def test_queues_hold_after_rejections(tmp_path: Path, monkeypatch) -> None:
    """P4: invariants after every step, those included in which drafts are thrown away or a text ends."""
    model = early_generator(tmp_path).transformer
    made = []

    class Watched(Waterfall):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            made.append(self)

        def step(self, *arguments):
            check_queues(self, self.cache, 3)
            return super().step(*arguments)

    monkeypatch.setattr(generation, "Waterfall", Watched)
    prompts = prompts_of([1, 5, 3])
    off, _ = rows_of(model, prompts, max_new_tokens=12)
    found, tally = rows_of(
        model,
        prompts,
        max_new_tokens=12,
        stop={off[1][3]},
        decoding=Decoding("spec", median_rule(model, 0.8)),
    )
    check_queues(made[-1], made[-1].cache, 3)
    assert any(kept < length for text in tally.texts for length, kept in text.drafts)
    assert all(not queues for queues in made[-1].waiting)
    for row, (prompt, tokens) in enumerate(zip(prompts, found, strict=True)):
        assert made[-1].cache.next_position(row) == len(prompt) + len(tokens) - 1


LAW = Sampling(temperature=1.3, seed=5)
DRAWN_ROWS, DRAWN_TOKENS = 3000, 3


def law_of(
    model, prompt, vocabulary: int, stop, logits, sampling: Sampling = LAW
) -> dict[tuple[int, ...], float]:
    """Probability of every text of `DRAWN_TOKENS` tokens at most, the token by token product."""
    found = {}
    for text in product(range(vocabulary), repeat=DRAWN_TOKENS):
        ends = [place for place, token in enumerate(text) if token in stop]
        text = text[: ends[0] + 1] if ends else text
        shares = probabilities(logits(model, torch.tensor([*prompt, *text])), sampling)[len(prompt) - 1 :]
        found[text] = float(torch.stack([shares[i, token] for i, token in enumerate(text)]).prod())
    assert sum(found.values()) == pytest.approx(1)
    return found


def at_full_depth(model, ids):
    return model.next_token(model(*pack([ids]))[0])


def at_the_exit(model, ids):
    _, rows = pack([ids])
    hidden, _ = model.stack(model.embeddings(ids, rows), rows, layers=range(1))
    return model.language_exits["1"](hidden, model.vocabulary)


@torch.no_grad()
@pytest.mark.parametrize(
    "sampling",
    [LAW, replace(LAW, top_k=2), replace(LAW, top_p=0.8), replace(LAW, top_k=2, top_p=0.9)],
    ids=["all", "top-k", "top-p", "both"],
)
def test_drawn_texts_follow_the_law_of_full_depth(sampling: Sampling, tmp_path: Path) -> None:
    """P9: chi-square over all texts of three tokens of a vocabulary of three, one of which ends them.

    3,000 texts with fixed seeds; a right sampler fails at p < 1e-4 once in 10,000 choices of the seeds. The
    same counts refute the law of the exit, by which all drafts were drawn.
    """
    model = early_generator(tmp_path, "gpt2", vocab_size=3, bos_token_id=0, eos_token_id=2).transformer
    prompt = [0, 1]
    stop = {int(at_the_exit(model, torch.tensor(prompt))[-1].argmin())}
    rule = ExitRule(criterion="entropy", thresholds={1: 99.0})
    counts: dict[tuple[int, ...], int] = {}
    texts, tally = rows_of(
        model,
        [prompt] * DRAWN_ROWS,
        max_new_tokens=DRAWN_TOKENS,
        stop=stop,
        sampling=sampling,
        decoding=Decoding("spec", rule),
    )
    for text in texts:
        counts[tuple(text)] = counts.get(tuple(text), 0) + 1
    assert 0.1 < tally.acceptance < 0.95

    def pvalue(law: dict[tuple[int, ...], float]) -> float:
        if not all(law.get(text) for text in counts):
            return 0.0  # such a text cannot be
        expected = {text: DRAWN_ROWS * share for text, share in law.items() if share > 0}
        rare = sum(e for e in expected.values() if e < 5)
        few = sum(counts.get(text, 0) for text, e in expected.items() if e < 5)
        cells = [(counts.get(text, 0), e) for text, e in expected.items() if e >= 5]
        cells += [(few, rare)] if rare >= 5 else []
        return float(chi2.sf(sum((n - e) ** 2 / e for n, e in cells), len(cells) - 1))

    assert pvalue(law_of(model, prompt, 3, stop, at_full_depth, sampling)) > 1e-4
    assert pvalue(law_of(model, prompt, 3, stop, at_the_exit, sampling)) < 1e-12


def test_what_a_rejected_draft_is_replaced_by() -> None:
    """Enumerated: q(x) min(1, p / q) + rejected mass times the residual is p, drawn 20,000 times each."""
    logits = torch.tensor([[0.3, -1.0, 1.2, 0.0], [5.0, 0.0, 0.0, 0.0]]).double()
    sampling = Sampling(temperature=1.0, top_k=3)
    p, q = probabilities(logits, sampling)[0], torch.tensor([0.1, 0.2, 0.1, 0.6]).double()
    draw, count = torch.Generator().manual_seed(0), 20_000
    found = torch.zeros(4, dtype=torch.double)
    for _ in range(count):
        draft = Draft(int(torch.multinomial(q, 1, generator=draw)), 1, q)
        found[verified(logits, [draft], sampling, draw)[0]] += 1
    assert p[1] == 0 == found[1], "what top-k forbids is drafted, and never stands"
    assert ((found / count - p).abs() <= 5 * (p * (1 - p) / count).sqrt()).all()


def test_a_row_draws_the_same_alone(tmp_path: Path) -> None:
    model = early_generator(tmp_path).transformer
    prompts = prompts_of(LENGTHS)
    options = {"max_new_tokens": 10, "decoding": Decoding("spec", median_rule(model))}
    together, _ = rows_of(model, prompts, sampling=Sampling(0.8, 40, 0.95, seed=3), **options)
    for row, prompt in enumerate(prompts):
        alone, _ = rows_of(model, [prompt], sampling=Sampling(0.8, 40, 0.95, seed=3 + row), **options)
        assert alone[0] == together[row]


def test_only_verified_logits_choose() -> None:
    """Ties: full depth takes the first of equal logits, and a draft of the second does not stand."""
    logits = torch.tensor([[1.0, 3.0, 3.0], [2.0, 0.0, 2.0]])
    draw = torch.Generator()
    assert verified(logits, [Draft(2, 1, None)], GREEDY, draw) == [1]
    assert verified(logits, [Draft(1, 1, None)], GREEDY, draw) == [1, 0]


def test_bug_i_no_token_follows_from_a_rejected_draft(tmp_path: Path) -> None:
    """Seen: after the first cycle a bonus token was appended that had been conditioned on a rejected draft.

    Exits that are always wrong, many cycles: each gives out one token, and never one more.
    """
    model = early_generator(tmp_path).transformer
    wrong(model)
    off, _ = rows_of(model, [[5, 6]], max_new_tokens=20)
    given = [
        len(step) for step in generate(model, [[5, 6]], max_new_tokens=20, decoding=Decoding("spec", ALWAYS))
    ]
    assert given == [1] * 20
    found, tally = rows_of(model, [[5, 6]], max_new_tokens=20, decoding=Decoding("spec", ALWAYS, most=3))
    assert found == off
    assert all(kept == 0 for _, kept in tally.of(0).drafts)
    assert tally.steps > 40


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bug_ii_an_exit_does_not_end_a_text(temperature: float, tmp_path: Path) -> None:
    """Seen: a stop token proposed by an exit, with nothing drafted before it, ended the text unverified.

    Exits that say nothing but the stop token, where full depth never says it.
    """
    model = early_generator(tmp_path, "llama").transformer  # its own matrix to the vocabulary
    model.language_head.weight.data[7] = 0
    for head in model.language_exits.values():
        head.output.weight.data.zero_()
        hidden = model.embeddings.token.weight[[3]]
        head.output.weight.data[7] = 50 * head.norm(hidden)[0].sign()
    prompts = prompts_of([1, 4])
    options = {"max_new_tokens": 12, "sampling": Sampling(temperature, top_k=50)}
    if temperature == 0:
        off, _ = rows_of(model, prompts, **options)
        assert not any(7 in tokens for tokens in off)
        assert rows_of(model, prompts, stop={7}, decoding=Decoding("spec", ALWAYS), **options)[0] == off
    else:
        drawn, tally = rows_of(model, prompts, stop={7}, decoding=Decoding("spec", ALWAYS), **options)
        assert all(len(tokens) == 12 or tokens[-1] == 7 for tokens in drawn)
        assert all(7 not in tokens[:-1] for tokens in drawn)
    for mode in ("direct", "spec"):
        _, tally = rows_of(model, [[3]], max_new_tokens=3, stop={7}, decoding=Decoding(mode, ALWAYS))
        assert tally.of(0).layers[0] == 5, "a token whose exits say stop goes through all layers"


@torch.no_grad()
def test_bug_iii_a_stop_token_at_one_exit_leaves_the_next_one_its_say(tmp_path: Path) -> None:
    """Seen: the loop over exits was left at a stop token without noting where, and went on from there.

    The first exit says stop, the second something else: the token leaves at the second.
    """
    model = early_generator(tmp_path).transformer
    prompts = [[token] for token in range(3, 60)]
    first, second = (
        rows_of(model, prompts, max_new_tokens=1, decoding=Decoding("direct", only))[0]
        for only in (ExitRule(criterion="entropy", thresholds={layer: 99.0}) for layer in (1, 3))
    )
    row = next(row for row in range(len(prompts)) if first[row] != second[row])
    (found,), tally = rows_of(
        model, [prompts[row]], max_new_tokens=1, stop={first[row][0]}, decoding=Decoding("direct", ALWAYS)
    )
    assert (found, tally.of(0).layers) == (second[row], [3])


@torch.no_grad()
@pytest.mark.parametrize("family", ["gpt2", "llama-grouped"])
def test_bug_iv_tokens_verified_together_do_not_see_each_other_ahead(family: str, tmp_path: Path) -> None:
    """Seen: layers called without a mask. Another last draft must not change the logits before it."""
    from lessen.runtime.cache import KeyValueCache
    from lessen.runtime.tally import Tally

    model = early_generator(tmp_path, family).transformer
    found = []
    for last in (50, 60):
        layers = Waterfall(model, KeyValueCache(model, 1, 8), Decoding("spec", ALWAYS), (), tally := Tally())
        tally.begin(model, [1])
        for token in (5, 6, 7):
            layers.step({0: [token]}, (), {})
        (answer,) = layers.step({0: [last]}, {0}, {0: 4})
        assert answer.counts == (4,)
        found.append(answer.logits)
    assert torch.equal(found[0][:3], found[1][:3])
    assert not torch.equal(found[0][3], found[1][3])
    expected = at_full_depth(model, torch.tensor([5, 6, 7, 50]))
    assert (found[0] - expected).abs().max() <= 1e-9 * expected.abs().max()


@torch.no_grad()
def test_bug_v_full_depth_has_its_cache_too(tmp_path: Path) -> None:
    """Seen: neither the method nor what it was compared with had a cache. `off` runs each position once."""
    model = early_generator(tmp_path).transformer
    tokens = [0] * model.depth
    for place, block in enumerate(model.layers):
        block.register_forward_hook(
            lambda _, given, __, place=place: tokens.__setitem__(place, tokens[place] + len(given[0]))
        )
    rows_of(model, [[3, 4, 5]], max_new_tokens=10)
    assert tokens == [3 + 9] * 5


@torch.no_grad()
def test_an_error_on_the_way_leaves_the_model_as_it_was(tmp_path: Path, monkeypatch) -> None:
    """P14: nothing of a run is kept in the model."""
    model = early_generator(tmp_path).transformer
    off, _ = rows_of(model, [[5, 6]], max_new_tokens=6)
    states = {name: value.clone() for name, value in model.state_dict().items()}
    going = generate(model, [[5, 6]], max_new_tokens=6, decoding=Decoding("spec", ALWAYS))
    monkeypatch.setattr(model, "next_token", None)
    with pytest.raises(TypeError):
        list(going)
    monkeypatch.undo()
    assert all(torch.equal(value, states[name]) for name, value in model.state_dict().items())
    assert rows_of(model, [[5, 6]], max_new_tokens=6)[0] == off


def test_the_base_model_is_what_full_depth_is(tmp_path: Path) -> None:
    """The model with exits, in `spec`, says what transformers says of the model without."""
    model = early_generator(tmp_path).transformer
    theirs = tiny_generator("llama-grouped", num_hidden_layers=5).double()
    prompt = prompts_of([9])[0]
    expected = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=15, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    (found,), _ = rows_of(
        model, [prompt], max_new_tokens=15, decoding=Decoding("spec", median_rule(model, 0.8))
    )
    assert found == expected[0, 9:].tolist()


@torch.no_grad()
@pytest.mark.parametrize(
    "in_few_bits",
    [partial(in_few_bits, precision="int4"), partial(in_few_bits, precision="int8-weights")],
    ids=["4", "8"],
)
def test_drafts_are_verified_with_weights_of_few_bits_too(in_few_bits, tmp_path: Path) -> None:
    model = in_few_bits(early_generator(tmp_path).float()).transformer
    rule, prompts = median_rule(model), prompts_of([1, 6])
    modes = Decoding(), Decoding("spec", rule), Decoding("direct", rule)
    off, spec, direct = (rows_of(model, prompts, max_new_tokens=10, decoding=mode)[0] for mode in modes)
    assert spec == off
    assert all(len(tokens) == 10 for tokens in direct)
