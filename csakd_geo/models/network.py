"""The dual two-stream fusion network (CSAKD, arXiv 2406.19666; S3RNet, arXiv 2501.07953)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ModelError
from .attention import AttentionSums
from .blocks import SLOPE, convolve_parts, stack
from .config import NetworkConfig
from .fusers import CrossFuser, make_fuser

#: What `last` starts at, relative to its usual weights, so that a residual network begins at its base.
RESIDUAL_START = 0.01


class DualTwoStream(nn.Module):
    """Fuse a coarse many-band tensor with a fine few-band tensor.

    The forward pass is ``fine(..., *coarse(...))``: `coarse` runs the two deep streams on the coarse
    grid, `fine` runs the rest on the fine grid, so that tiled inference can size the two differently.

    Parameters
    ----------
    config
        The network's shape.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        bands, msi_bands, nf, gc = config.bands, config.msi_bands, config.features, config.growth
        hmfeat, mhfeat, hfeat, mfeat = config.depths
        groups = config.groups if config.student else 1
        base = bands if config.residual else 0
        self.hmconv1 = nn.Conv2d(bands + msi_bands + base, nf, 3, padding=1)
        self.mhconv1 = nn.Conv2d(bands + msi_bands, nf, 3, padding=1)
        self.hconv1 = nn.Conv2d(bands, nf, 3, padding=1)
        self.mconv1 = nn.Conv2d(msi_bands, nf, 3, padding=1)
        if config.owns_hmfeat:
            self.hmfeat = stack(hmfeat, nf, gc, groups=groups)
        self.mhfeat = stack(mhfeat, nf, gc)
        self.hfeat = stack(hfeat, nf, gc, groups=nf // 2 if config.student else 1)
        self.mfeat = stack(mfeat, nf, gc, groups=groups)
        self.fuse_att = make_fuser(config)
        self.fuse = nn.Conv2d(nf, bands, 3, padding=1, groups=config.groups)
        self.last = nn.Conv2d(bands, bands, 3, padding=1, bias=False)
        if config.residual:
            with torch.no_grad():
                self.last.weight.mul_(RESIDUAL_START)

    def forward(
        self,
        hsi: Tensor,
        msi: Tensor,
        base: Tensor | None = None,
        statistics: AttentionSums | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Fuse one batch.

        Parameters
        ----------
        hsi
            Shape (n, bands, y, x).
        msi
            Shape (n, msi_bands, ratio * y, ratio * x) for a whole ratio of 1 or more.
        base
            The estimate that a residual network refines, (n, bands, ratio * y, ratio * x); None otherwise.
        statistics
            Attention sums of the whole scene (or mixing matrices (4, 16, 16)); None takes them from this
            input, per sample. Only networks with ``config.needs_statistics`` look at them.

        Returns
        -------
        output, features
            Shapes (n, bands, ratio * y, ratio * x) and (n, features, ratio * y, ratio * x).

        Raises
        ------
        ModelError
            Tensors that do not fit the network or each other.
        """
        x1, x3 = self.coarse(hsi, msi)
        return self.fine(hsi, msi, x1, x3, base=base, statistics=statistics)

    def coarse(self, hsi: Tensor, msi: Tensor) -> tuple[Tensor, Tensor]:
        """Run the two coarse streams: x1 (hsi alone) and x3 (both), each (n, features, y, x)."""
        self._check(hsi, msi)
        return self.hsi_stream(hsi), self.shrunk_stream(hsi, msi)

    def fine(
        self,
        hsi: Tensor,
        msi: Tensor,
        x1: Tensor,
        x3: Tensor,
        *,
        base: Tensor | None = None,
        statistics: AttentionSums | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the two fine streams and join them with `coarse`'s; arguments and result as in `forward`."""
        if (base is not None) != self.config.residual:
            raise ModelError(
                "This network refines a base estimate and got none; pass base."
                if self.config.residual
                else "This network takes no base estimate; leave base out."
            )
        self._check(hsi, msi, base)
        x4 = self._joint_stream(hsi, msi, base)
        x2 = self._msi_stream(msi)
        features: Tensor = self.fuse_att(enlarge(x1, msi), x2, enlarge(x3, msi), x4, statistics)
        del x1, x2, x3, x4
        output: Tensor = self.last(_activate(self.fuse(features)))
        return (
            output if base is None else output.float().add_(base)
        ), features  # half of base is lost in bf16

    def attention_sums(
        self, hsi: Tensor, msi: Tensor, *, core: tuple[slice, slice] | None = None
    ) -> AttentionSums | None:
        """Take the sums that cross attention needs from one tile.

        Parameters
        ----------
        hsi, msi
            As in `forward`.
        core
            Fine row and column slices over which the sums run, so that halos do not count.

        Returns
        -------
        AttentionSums or None
            Sums over all samples and core pixels; None for a network without global attention.

        Raises
        ------
        ModelError
            Tensors that do not fit, or an empty core.
        """
        fuser = self.fuse_att
        if not self.config.needs_statistics or not isinstance(fuser, CrossFuser):
            return None
        self._check(hsi, msi)
        rows, columns = core or (slice(None), slice(None))
        with torch.no_grad():
            x1 = enlarge(self.hsi_stream(hsi), msi)[:, :, rows, columns]
            x2 = self._msi_stream(msi)[:, :, rows, columns]
            return fuser.sums(x1, x2)

    def hsi_stream(self, hsi: Tensor) -> Tensor:
        """The stream x1 (n, features, y, x) of the HSI alone."""
        x1: Tensor = self.hfeat(_activate(self.hconv1(hsi)))
        return x1

    def shrunk_stream(self, hsi: Tensor, msi: Tensor) -> Tensor:
        """The stream x3 (n, features, y, x) of the HSI and the shrunk MSI."""
        x3: Tensor = self.mhfeat(_activate(convolve_parts(self.mhconv1, hsi, shrink(msi, hsi))))
        return x3

    def _msi_stream(self, msi: Tensor) -> Tensor:
        x2: Tensor = self.mfeat(_activate(self.mconv1(msi)))
        return x2

    def _joint_stream(self, hsi: Tensor, msi: Tensor, base: Tensor | None) -> Tensor:
        hsi_up = functional.interpolate(hsi, size=msi.shape[-2:], mode="bilinear", align_corners=False)
        parts = (hsi_up, msi) if base is None else (hsi_up, msi, base)
        x4 = _activate(convolve_parts(self.hmconv1, *parts))
        del hsi_up, parts
        if not self.config.student:
            x4 = self.hmfeat(x4)
        return x4

    def _check(self, hsi: Tensor, msi: Tensor, base: Tensor | None = None) -> None:
        config = self.config
        if hsi.ndim != 4 or msi.ndim != 4 or hsi.shape[0] != msi.shape[0]:
            raise ModelError(
                f"The network takes two tensors (n, band, y, x) of one n; found {tuple(hsi.shape)} and "
                f"{tuple(msi.shape)}."
            )
        if hsi.shape[1] != config.bands or msi.shape[1] != config.msi_bands:
            raise ModelError(
                f"The network takes {config.bands} HSI and {config.msi_bands} MSI bands; found "
                f"{hsi.shape[1]} and {msi.shape[1]}."
            )
        ratio = msi.shape[2] // max(hsi.shape[2], 1)
        if ratio < 1 or (msi.shape[2], msi.shape[3]) != (ratio * hsi.shape[2], ratio * hsi.shape[3]):
            raise ModelError(
                f"The MSI's size must be one whole multiple of the HSI's; found {tuple(msi.shape[2:])} over "
                f"{tuple(hsi.shape[2:])}."
            )
        if base is not None and base.shape != (*hsi.shape[:2], *msi.shape[2:]):
            raise ModelError(
                f"The base must have the output's shape {(*hsi.shape[:2], *msi.shape[2:])}; found "
                f"{tuple(base.shape)}."
            )


def enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Nearest upsampling of x to the size of `like`."""
    return functional.interpolate(x, size=like.shape[-2:], mode="nearest")


def shrink(x: Tensor, like: Tensor) -> Tensor:
    """Bicubic downsampling of x, without antialiasing, to the size of `like`."""
    return functional.interpolate(x, size=like.shape[-2:], mode="bicubic", align_corners=False)


def count_parameters(network: DualTwoStream, used_only: bool = False) -> int:
    """Count trainable numbers.

    Parameters
    ----------
    network
        Any dual two-stream network.
    used_only
        Leave out the ``hmfeat`` weights that a student owns but never calls, as the paper counts. (It
        counts the query and key weights of ``released`` attention, though they have no effect.)

    Returns
    -------
    int
        Number of parameters.
    """
    skip = "hmfeat." if used_only and network.config.student else None
    return sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if skip is None or not name.startswith(skip)
    )


def _activate(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, SLOPE, inplace=True)
