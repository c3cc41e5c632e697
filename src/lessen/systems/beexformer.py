"""BEExformer (arXiv 2412.05225): binary weights and exits trained together, from scratch, without a teacher.

The paper's equations and recipe are not public: this is our reconstruction (BEExformer page, section 0).
Rates, epochs and word dropout are ours.
"""

from lessen.plan import ExitShape
from lessen.systems.binarizing import Binarizing
from lessen.systems.system import System

SYSTEM = System(
    name="beexformer",
    summary="binary weights and exits learn together, without a teacher (2412.05225, our reconstruction)",
    stages=(
        Binarizing(
            objective="soft_routing",
            epochs=4.0,
            rows=60_000,
            batch_size=64,
            learning_rate=1e-3,
            word_dropout=0.15,
        ),
    ),
    criteria=("entropy_plateau",),
    exit=ExitShape(layer=1, pool="mean", hidden_size=32, activation="relu"),
)
