"""PABEE (Zhou et al. 2020): exits trained together, left when some in a row give the same answer."""

from lessen.systems.system import System
from lessen.train.fine_tuning import Recipe

SYSTEM = System(
    name="pabee",
    summary="patience: leave when several exits in a row agree (Zhou et al. 2020)",
    stages=(Recipe(objective="depth_weighted", learning_rate=2e-5),),
    criteria=("patience",),
)
