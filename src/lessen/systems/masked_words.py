"""Masked-word pre-training with binary weights, on plain text: a start for BEExformer other than random.

Our own, beside the paper, which trains from scratch as far as is known. BiPFT pre-trains binary weights too,
in 500,000 steps.
"""

from lessen.systems.pretraining import Pretraining
from lessen.systems.system import System

SYSTEM = System(
    name="masked-words",
    summary="binary weights learn to guess masked words of plain text: a start for the system beexformer",
    stages=(
        Pretraining(objective="masked_words", epochs=2.0, batch_size=64, learning_rate=1e-3, max_tokens=64),
    ),
    criteria=(),
)
