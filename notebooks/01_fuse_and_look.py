# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Fuse a pair and look
#
# The embedded sample is a real AVIRIS scene (Indian Pines), degraded by Wald's protocol: a hyperspectral
# image of 36 x 36 pixels, a multispectral one of 144 x 144, and the truth. Nothing is downloaded.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import csakd_geo
from csakd_geo.metrics import score
from csakd_geo.sample import write_sample

sample = write_sample(Path(tempfile.mkdtemp()))

# %% [markdown]
# `fuse` fits everything at the call (PSF, shift, spectral response, subspace, attention sums) and returns a
# lazy cube: pixels are computed where you look.

# %%
cube = csakd_geo.fuse(sample.hsi, sample.msi)
print(cube.attrs["method"], "-", cube.attrs["method_reason"])
print("PSF:", cube.attrs["psf_fwhm_hsi_pixels"], "HSI pixels wide; shift", cube.attrs["shift"])
cube.sel(band=30)

# %%
truth = csakd_geo.open_cube(sample.truth).load()
cube = cube.load()
scores = score(cube.values, truth.values, ratio=cube.attrs["ratio"])
print(f"PSNR {scores.psnr:.2f} dB, SAM {scores.sam:.3f} degrees, ERGAS {scores.ergas:.3f}")

# %% [markdown]
# A true-colour composite of both images, picked by wavelength and stretched alike.

# %%
hsi = csakd_geo.open_cube(sample.hsi).load()
wavelength = cube.wavelength.values
bands = [int(np.abs(wavelength - nm).argmin()) for nm in (650, 550, 475)]
low, high = np.percentile(truth[bands], [1, 99], axis=(1, 2))
figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
shown = {"HSI, 80 m": hsi, "fused, 20 m": cube, "truth, 20 m": truth}
for ax, (name, image) in zip(axes, shown.items(), strict=True):
    picture = (image.values[bands].transpose(1, 2, 0) - low) / (high - low)
    ax.imshow(np.clip(picture, 0, 1), interpolation="nearest")
    ax.set(title=name, xticks=[], yticks=[])
plt.show()


# %% [markdown]
# How far the spectrum of each pixel is from the true one, as an angle: in the HSI, whose pixel covers 4 x 4 of them,
# and after fusion. What is left lies along edges that the HSI does not resolve, and where the signal is weak.


# %%
def angles(image):
    product = (image * truth.values).sum(axis=0)
    norms = np.linalg.norm(image, axis=0) * np.linalg.norm(truth.values, axis=0)
    return np.degrees(np.arccos(np.clip(product / norms, -1, 1)))


repeated = hsi.values.repeat(4, axis=1).repeat(4, axis=2)
maps = {"HSI": angles(repeated), "fused": angles(cube.values)}
figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained", width_ratios=(1, 1, 1.1))
for ax, (name, angle) in zip(axes, maps.items(), strict=False):
    drawn = ax.imshow(angle, vmin=0, vmax=10, cmap="magma", interpolation="nearest")
    ax.set(title=f"{name}: {angle.mean():.2f}° on average", xticks=[], yticks=[])
figure.colorbar(drawn, ax=axes[:2], label="spectral angle to the truth (degrees)", extend="max", shrink=0.9)
for name, angle in maps.items():
    axes[2].hist(angle.ravel(), bins=np.linspace(0, 15, 76), histtype="step", lw=1.6, label=name)
axes[2].set(title="all pixels", xlabel="spectral angle to the truth (degrees)", ylabel="pixels")
axes[2].legend()
plt.show()

# %% [markdown]
# The spectrum of one pixel against the truth. The gaps in radiance at 1400 and 1900 nm are water vapour.

# %%
row, column = 63, 118
order = np.argsort(wavelength)  # AVIRIS has four spectrometers, which overlap a little
figure, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
ax.plot(wavelength[order], truth.values[order, row, column], "k--", lw=1, label="truth")
ax.plot(wavelength[order], cube.values[order, row, column], color="C1", label="fused")
ax.plot(
    wavelength[order], hsi.values[order, row // 4, column // 4], color="C0", lw=1, label="HSI pixel around it"
)
ax.set(
    xlabel="wavelength (nm)",
    ylabel="radiance (µW cm$^{-2}$ nm$^{-1}$ sr$^{-1}$)",
    title=f"row {row}, column {column}",
)
ax.legend()
plt.show()
