"""A stage's retention profile: its own family, measured only where that is, and solved for one speed-up."""

import pytest
import torch
from conftest import CharacterTokenizer, lively, task

from lessen.data.table import Table
from lessen.errors import InputError
from lessen.plan import RetentionProfile
from lessen.records import parse
from lessen.runtime.retention import alpha_for
from lessen.systems import token_stages
from lessen.systems.token_stages import TokenPlan, check_tokens, give_profile, passes_of
from lessen.tokens.profile import retention_of
from lessen.train.fine_tuning import Recipe

BASE = (0.8, 0.5, 0.3)
RECIPE = Recipe(objective="last", epochs=1.0, speedup=1.5)


@pytest.fixture
def model(tiny_classifier):
    made = lively(tiny_classifier)
    made.tokenizer = CharacterTokenizer()
    return made


@pytest.mark.parametrize("family", ["acc", "envelope", "explicit", "geometric", "tilt"])
def test_a_profile_keeps_its_family_and_attention_is_measured_only_for_it(
    family: str, model, tmp_path, monkeypatch
) -> None:
    runs = []
    monkeypatch.setattr(model.transformer, "stack", _counting(model.transformer.stack, runs))
    plan = TokenPlan(family=family, score="last_query", base=BASE if family == "explicit" else None)
    give_profile(model, task(), RECIPE, plan, tmp_path)
    assert bool(runs) == (family in ("acc", "envelope"))
    profile = model.config.retention_profile()
    assert (profile.family, profile.score, profile.trained_at) == (family, "last_query", 1.5)
    assert len(profile.base) == 3
    assert (profile.base == BASE) == (family == "explicit")
    assert len(profile.lengths) == 32
    before = len(runs)
    give_profile(model, task(), RECIPE, plan, tmp_path)
    assert model.config.retention_profile() == profile
    assert len(runs) == before, "a resumed run reads what it noted"


def _counting(function, runs: list):
    def counted(*given, **options):
        runs.append(given)
        return function(*given, **options)

    return counted


def test_training_goes_as_far_as_the_profile_says(model, tmp_path, monkeypatch) -> None:
    """Not as far as the recipe asks, where rows were found too short for it; and that is not solved again."""
    recipe = RECIPE.model_copy(update={"speedup": 50.0, "as_far_as_rows_allow": True, "rates": "one"})
    give_profile(model, task(), recipe, TokenPlan(), tmp_path)
    profile = model.config.retention_profile()
    assert 1 < profile.trained_at < 50
    monkeypatch.delattr(token_stages, "most_reached")
    torch.manual_seed(0)
    (once,) = passes_of(model, recipe)()
    alpha = alpha_for(model.transformer, profile, profile.trained_at)
    assert once.retention == retention_of(profile, alpha)


def test_rows_too_short_to_lose_a_token_are_named(model, monkeypatch) -> None:
    """As prompts of a generator are whose every token is among the first and the last, which stay."""
    table = Table("short", ["a", "b"], None, None, [])
    monkeypatch.setattr(token_stages, "most_reached", lambda *_: 1.0)
    recipe = RECIPE.model_copy(update={"as_far_as_rows_allow": True})
    with pytest.raises(InputError, match=r"no token would leave: rows have 3 tokens at most.*longer texts"):
        check_tokens(model, table, recipe, TokenPlan())
    with pytest.raises(InputError, match="shares below 1 to --retention"):
        check_tokens(model, task(), recipe, TokenPlan(family="explicit", base=(1.0, 1.0, 1.0)))


def test_profiles_of_before_are_still_read() -> None:
    """An envelope was noted as `acc` once; it is raised to the same power."""
    old = parse(RetentionProfile, {"version": 1, "family": "acc", "base": BASE, "trained_at": 2.0}, "old")
    new = RetentionProfile(family="envelope", base=BASE)
    assert retention_of(old, 1.7) == retention_of(new, 1.7)
