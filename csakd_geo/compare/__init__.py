"""Every method side by side on a small window of a pair, before a long run."""

from csakd_geo.compare.comparison import Candidate, Comparison
from csakd_geo.compare.run import compare_methods

__all__ = ["Candidate", "Comparison", "compare_methods"]
