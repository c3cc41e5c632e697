"""Where a generator's exits sit if nobody says: as many as asked for, or as fit."""

import pytest

from lessen.depth.placement import places, usual_places
from lessen.errors import PlanError
from lessen.plan import LanguageExitShape
from lessen.records import parse


def test_as_many_as_fit_before_the_last_layer() -> None:
    assert usual_places(32, 3) == places(32, 3) == (9, 17, 25)
    assert usual_places(4, 3) == (2, 3)
    assert usual_places(3, 3) == (2,)
    assert usual_places(2, 3) == (1,)
    for layers in range(2, 40):
        found = usual_places(layers, 3)
        assert 1 <= len(found) <= 3
        assert all(0 < a < b < layers for a, b in zip(found, (*found[1:], layers - 0.5), strict=True))


def test_the_model_s_own_head_corrects_nothing() -> None:
    assert parse(LanguageExitShape, {"layer": 1, "kind": "shared"}, "exits").rank is None
    with pytest.raises(PlanError, match="'shared' has none"):
        parse(LanguageExitShape, {"layer": 1, "kind": "shared", "rank": 4}, "exits")
