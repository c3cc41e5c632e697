"""Risk control: choose a step of a path so that, with high probability, its risk stays below a bound.

Learn then Test (Angelopoulos et al. 2021) with fixed-sequence testing; NumPy and SciPy only. A path is any
ordered list of settings, from the most careful to the boldest; this package sees only the losses they caused
on calibration rows.
"""

from lessen.guarantee.choose import Chosen, certify, expectation, plug_in
from lessen.guarantee.losses import (
    Losses,
    disagreement,
    marginal_drop,
    selective_disagreement,
    selective_token_disagreement,
    token_disagreement,
)
from lessen.guarantee.power import rows_like_these, rows_needed

__all__ = [
    "Chosen",
    "Losses",
    "certify",
    "disagreement",
    "expectation",
    "marginal_drop",
    "plug_in",
    "rows_like_these",
    "rows_needed",
    "selective_disagreement",
    "selective_token_disagreement",
    "token_disagreement",
]
