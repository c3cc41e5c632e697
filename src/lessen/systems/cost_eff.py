"""COST-EFF (Shen et al. 2022): a slender model with exits, made together.

A dense model is fine-tuned and teaches another, the assistant, to answer at every exit. That one teaches a
model which gets narrower round by round, and then recovers. Stages and losses follow the authors' code
(COST-EFF page, 1.3 to 1.9). Ours are:

* two rounds for each head that leaves, so that rates grow twice as often;
* the learning rates, of small encoders one for all stages, of wide ones the page's up to the assistant and
  higher ones from there on, because rounds are a third as long as the authors' (docs/measuring.md);
* rates of exits of their own, which do not grow from round to round;
* 2,048 rows that parts are scored on, in bfloat16, where the authors take all in float32;
* neurons and the token table's rank, which follow one share and not the page's steps of 256 and 128;
* no dropout in the attention;
* the epochs, for 10,000 rows, with two where the assistant learns features, for the page's one;
* the exits, linear over the mean of the tokens, where the authors have a tanh of the first one (page, 1.2);
* gradient equilibrium from the assistant on: before it, no exit is trained;
* that the last step of a training is its result unless a share of the rows is there to select another on,
  where the authors' code keeps the one best on development rows (page, 1.9; docs/architecture.md says why).
"""

from lessen.systems.slimming import Slimming
from lessen.systems.system import System
from lessen.train.fine_tuning import Recipe

ROWS = 10_000

SYSTEM = System(
    name="cost-eff",
    summary="narrower layers with exits that learn together from a multi-exit assistant (Shen et al. 2022)",
    stages=(
        Recipe(objective="last", epochs=5.0, rows=ROWS),
        Recipe(objective="features", epochs=2.0, rows=ROWS, teacher=1, from_checkpoint=True),
        Recipe(objective="assistant", epochs=5.0, rows=ROWS, teacher=1, equilibrium=True),
        Slimming(
            objective="features_and_predictions",
            features_first=0.7,
            epochs=0.5,
            rows=ROWS,
            teacher=3,
            head_learning_rate=1e-4,
            equilibrium=True,
            rounds_for_a_head=2,
        ),
        Recipe(objective="features", epochs=6.0, rows=ROWS, teacher=3, equilibrium=True),
        Recipe(
            objective="features_and_predictions",
            epochs=4.0,
            rows=ROWS,
            teacher=3,
            head_learning_rate=1e-4,
            equilibrium=True,
        ),
    ),
    criteria=("entropy", "max_probability", "margin", "patience"),
    wide=(
        {"learning_rate": 2e-5},
        {"learning_rate": 2e-5},
        {"learning_rate": 2e-5},
        {"learning_rate": 3e-5},
        {"learning_rate": 1e-4},
        {"learning_rate": 5e-5},
    ),
)
