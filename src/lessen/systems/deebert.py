"""DeeBERT (Xin et al. 2020): fine-tune the dense model, then freeze it and train the exits."""

from lessen.systems.system import System
from lessen.train.fine_tuning import Recipe

SYSTEM = System(
    name="deebert",
    summary="two stages: dense fine-tuning, then exits on the frozen backbone; entropy (Xin et al. 2020)",
    stages=(
        Recipe(objective="last"),
        Recipe(objective="summed", train_backbone=False, head_learning_rate=1e-3),
    ),
    criteria=("entropy",),
)
