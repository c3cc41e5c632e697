"""Latency-adjustable transformer (Kachuee and Sharifkhani 2022): tokens leave by their attention (ACC).

Fine-tune; measure how attention falls with depth; go on fine-tuning with tokens leaving. Afterwards the
speed-up is dialled without training. Equations are our reconstruction (latency-adjustable page, section 0).

Ours besides: a head after every layer, trained together, so that rows may leave early too; heads that read
the mean of the tokens, those that left with their last state; how many leave is drawn for each step; measured
shares compound twice; no dropout in attention; a learning rate of its own for heads in the second stage. The
paper's way, but for the last two, is `--exits LAST --pool cls --objective last --rates one --retention
envelope`.
"""

from lessen.systems.system import System
from lessen.train.fine_tuning import Recipe

SYSTEM = System(
    name="latency-adjustable",
    summary="tokens leave by the attention they get, at any speed-up dialled (Kachuee and Sharifkhani 2022)",
    stages=(
        Recipe(objective="depth_weighted"),
        Recipe(
            objective="depth_weighted",
            head_learning_rate=1e-4,
            speedup=4.8,
            as_far_as_rows_allow=True,
            rates="drawn",
        ),
    ),
    criteria=("max_probability", "entropy", "margin", "patience"),
)
