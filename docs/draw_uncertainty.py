"""Draw what uncertainty and quality show of the sample, into whose MSI a field and a cloud are pasted.

python docs/draw_uncertainty.py [-o docs/uncertainty.png]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
import rasterio
from matplotlib.patches import Patch

from csakd_geo.draft import draft_job
from csakd_geo.io import open_source
from csakd_geo.options import make_options
from csakd_geo.product import make_product
from csakd_geo.quality import FLAGS
from csakd_geo.sample import write_sample
from csakd_geo.uncertainty import open_uncertainty

FIELD = np.s_[:, 88:108, 20:44]  # takes the values of a place elsewhere
ELSEWHERE = np.s_[:, 8:28, 92:116]
CLOUD = np.s_[:, 20:32, 20:36]
PIXEL = (50, 30)
SHOWN = 1650.0  # nm


def main() -> None:
    """Fuse, read back, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("uncertainty.png"))
    args = parser.parse_args()
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample = write_sample(folder / "pair")
        msi = folder / "msi.tif"
        with rasterio.open(sample.msi) as src:
            profile, cube = src.profile, src.read()
            tags = [src.tags(k + 1) for k in range(src.count)]
            scales, offsets = src.scales, src.offsets
        cube[FIELD] = cube[ELSEWHERE].copy()
        cube[CLOUD] = profile["nodata"]
        with rasterio.open(msi, "w", **profile) as dst:
            dst.write(cube)
            dst.scales, dst.offsets = scales, offsets
            for k, values in enumerate(tags):
                dst.update_tags(k + 1, **values)
        options = make_options({"method": "coupled-map", "uncertainty": "bands", "quality": True})
        target = folder / "fused.tif"
        make_product(draft_job(sample.hsi, msi, options), target, report=lambda *_: None)
        images = [open_source(path) for path in (target, sample.truth)]
        fused, truth = (image.read(0, 0, image.height, image.width) for image in images)
        opened = open_uncertainty(folder / "fused_uncertainty.tif")
        sigma, nm = opened.values, opened.wavelength.values
        with rasterio.open(folder / "fused_quality.tif") as src:
            flags, colours = src.read(1), src.colormap(1)

    band = int(np.abs(nm - SHOWN).argmin())
    figure, axes = plt.subplots(2, 3, figsize=(11, 7.2), constrained_layout=True)
    error = np.abs(fused - truth)[band]
    limit = float(np.nanquantile(error, 0.98))
    at = f"at {nm[band]:.0f} nm"
    for ax, image, title, top in (
        (axes[0, 0], fused[band], f"fused, {at}", float(np.nanquantile(fused[band], 0.99))),
        (axes[0, 1], error, f"size of the error, {at}", limit),
        (axes[0, 2], 1.645 * sigma[band], f"half of the 90 % interval, {at}", limit),
    ):
        shown = ax.imshow(image, cmap="gray" if ax is axes[0, 0] else "magma", vmin=0, vmax=top)
        figure.colorbar(shown, ax=ax, shrink=0.75)
        ax.set_title(title, fontsize=10)
        ax.set_axis_off()
    ax = axes[1, 0]
    picture = np.array([colours[int(v)] for v in flags.ravel()], float).reshape(*flags.shape, 4) / 255
    ax.imshow(fused[band], cmap="gray", vmin=0, vmax=float(np.nanquantile(fused[band], 0.99)))
    picture[flags == 0, 3] = 0
    ax.imshow(picture)
    ax.set_title("quality flags", fontsize=10)
    ax.set_axis_off()
    marks = [
        Patch(color=np.array(colours[bit]) / 255, label=label)
        for bit, label, _ in FLAGS
        if (flags & bit).any()
    ]
    ax.legend(handles=marks, fontsize=8, loc="lower right")
    ax = axes[1, 1]
    y, x = PIXEL
    half = 1.645 * sigma[:, y, x]
    ax.fill_between(nm, fused[:, y, x] - half, fused[:, y, x] + half, color="#9ecae1", label="90 % interval")
    ax.plot(nm, fused[:, y, x], color="#08519c", lw=1, label="fused")
    ax.plot(nm, truth[:, y, x], color="black", lw=0.8, ls="--", label="truth")
    ax.set_title(f"one pixel (row {y}, column {x})", fontsize=10)
    ax.set_xlabel("nm")
    ax.legend(fontsize=8)
    ax = axes[1, 2]
    level = np.nanstd(truth, axis=(1, 2))
    ax.plot(nm, np.nanmean(sigma, axis=(1, 2)) / level, color="#08519c", lw=1)
    alone = ~opened.informed.values
    told = {"label": "the MSI does not help", "color": "#d7301f"}
    ax.plot(nm[alone], (np.nanmean(sigma, axis=(1, 2)) / level)[alone], "o", ms=3, **told)
    ax.legend(fontsize=8)
    ax.set_title("mean deviation over the band's spread", fontsize=10)
    ax.set_xlabel("nm")
    ax.set_ylim(0, None)
    figure.savefig(args.output, dpi=110)
    print(args.output)


if __name__ == "__main__":
    main()
