"""Layer chopping: COST-EFF's trainings, but whole layers leave instead of heads and neurons.

Of six layers one is as much as four of COST-EFF's rounds take, so its round learns four times as long.
"""

from dataclasses import replace

from lessen.systems import cost_eff
from lessen.systems.chopping import Chopping
from lessen.systems.slimming import Slimming
from lessen.train.fine_tuning import Recipe


def _chopping(stage: Recipe) -> Recipe:
    if not isinstance(stage, Slimming):
        return stage
    return Chopping.model_validate(
        {name: getattr(stage, name) for name in Recipe.model_fields} | {"epochs": 4 * stage.epochs}
    )


SYSTEM = replace(
    cost_eff.SYSTEM,
    name="layer-chop",
    summary="fewer layers, the ones that matter least dropped one by one, with exits on the rest",
    stages=tuple(_chopping(stage) for stage in cost_eff.SYSTEM.stages),
)
