"""How far a fused value may be off: a standard deviation per pixel and band, from the pair alone.

The variance of a band is ``alpha + beta * a``, with ``a`` the activity of the place: the local mean square of
what the MSI shows and its own PSF would hide, over the MSI's spread, so it depends on the MSI only. Both numbers
come from the errors one resolution level down, where the HSI is the truth (Wald et al. 1997), and from what the
method makes of the inputs' noise. Errors are heavy-tailed; ``sigma`` is the 90 % quantile of their size over
1.645, so that ``value +- 1.645 sigma`` holds nine of ten truths, not the root mean square.
"""

from csakd_geo.uncertainty.below import Trial, fit_uncertainty, try_below
from csakd_geo.uncertainty.law import TAIL, Uncertainty
from csakd_geo.uncertainty.opened import open_uncertainty

__all__ = ["TAIL", "Trial", "Uncertainty", "fit_uncertainty", "open_uncertainty", "try_below"]
