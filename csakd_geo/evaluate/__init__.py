"""How good a fused image is: against the truth, or against the two images that it was made of."""

from csakd_geo.evaluate.pair import PairEvaluation, evaluate_pair
from csakd_geo.evaluate.truth import Evaluation, evaluate, match_bands

__all__ = ["Evaluation", "PairEvaluation", "evaluate", "evaluate_pair", "match_bands"]
