"""Binary weights for a model that was pre-trained: it learns the task, and then teaches its binary self.

Our own, beside BEExformer: a warm start with distillation (BEExformer page, 1.10; BiT and BinaryBERT learn
from their real selves too).
"""

from lessen.systems.binarizing import Binarizing
from lessen.systems.system import System
from lessen.train.fine_tuning import Recipe

SYSTEM = System(
    name="binarize",
    summary="a pre-trained model learns the task, then teaches itself with binary weights",
    stages=(
        Recipe(objective="depth_weighted"),
        Binarizing(
            objective="features_and_predictions",
            epochs=6.0,
            learning_rate=2e-4,
            head_learning_rate=2e-4,
            teacher=1,
        ),
    ),
    criteria=("max_probability", "entropy", "margin", "patience"),
)
