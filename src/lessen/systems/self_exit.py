"""Self-supervised exits (Valade 2024): exits on a frozen model learn its own answers, without labels."""

from lessen.systems.system import System
from lessen.train.fine_tuning import Recipe

SYSTEM = System(
    name="self-exit",
    summary="exits on an already fine-tuned, frozen model, trained on its own answers; no labels needed",
    stages=(Recipe(objective="self_supervised", train_backbone=False, head_learning_rate=1e-3),),
    criteria=("entropy", "max_probability", "margin"),
    keeps_head=True,
)
