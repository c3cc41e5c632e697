"""Joint training of all exits, then the best exit rule the tuning split supports: the default."""

from lessen.systems.system import System
from lessen.train.fine_tuning import Recipe

SYSTEM = System(
    name="early-exit",
    summary="train all exits together, deeper ones weighing more; choose the criterion by what it saves",
    stages=(Recipe(objective="depth_weighted"),),
    criteria=("max_probability", "entropy", "margin", "patience"),
)
