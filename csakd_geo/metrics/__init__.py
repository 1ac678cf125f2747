"""Every score of a fused cube, on physical values, masked pixels left out.

`reference` holds scores against truth, `noreference` those that need only the two inputs, `seams` what
tiles leave. Each is a sum over pixels or blocks, so a scene of any size is scored part by part.
"""

from csakd_geo.metrics.agreement import Agreement, BandSums
from csakd_geo.metrics.noreference import NoReferenceScores, NoReferenceTally
from csakd_geo.metrics.quality import UIQI_BLOCK, block_edges, hypercomplex_quality, q2n, universal_quality
from csakd_geo.metrics.reference import Scores, data_range, score, score_bands, score_blocks
from csakd_geo.metrics.seams import seam_energy, seam_energy_strips

__all__ = [
    "UIQI_BLOCK",
    "Agreement",
    "BandSums",
    "NoReferenceScores",
    "NoReferenceTally",
    "Scores",
    "block_edges",
    "data_range",
    "hypercomplex_quality",
    "q2n",
    "score",
    "score_bands",
    "score_blocks",
    "seam_energy",
    "seam_energy_strips",
    "universal_quality",
]
