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
# # Spectra, indices and sampling
#
# What the accessor `.csakd` does with a cube: bands by wavelength, composites, spectra at places, and spectra of
# fields from a GeoDataFrame. The question on the way: what does fusion add for somebody who works with fields?
#
# The embedded sample is a real AVIRIS scene (Indian Pines, June 1992) seen at 80 m (HSI) and by Sentinel-2's four
# 10 m bands at 20 m (MSI); its field labels come with it. Nothing is downloaded.

# %%
import tempfile
from importlib.resources import files
from pathlib import Path

import geopandas
import matplotlib.pyplot as plt
import numpy as np
import rasterio.features
from shapely.geometry import shape

import csakd_geo
from csakd_geo.metrics import score
from csakd_geo.sample import write_sample

folder = Path(tempfile.mkdtemp())
sample = write_sample(folder)

# %% [markdown]
# `open_cube` opens an image (GeoTIFF, ENVI, Zarr, NetCDF or the product of a sensor) lazily, with wavelengths, FWHM
# and CRS; `xr.open_dataset(path, engine="csakd")` is the same for xarray.

# %%
hsi = csakd_geo.open_cube(sample.hsi)
truth = csakd_geo.open_cube(sample.truth).load()
hsi.csakd.sel_wavelength(slice(450, 680))

# %%
fused = hsi.csakd.fuse(sample.msi).load()
scores = score(fused.values, truth.values, ratio=fused.attrs["ratio"])
print(f"{fused.attrs['method']}: PSNR {scores.psnr:.2f} dB, SAM {scores.sam:.3f} degrees against the truth")

# %% [markdown]
# ## Fields as polygons
#
# The labels become polygons in the scene's CRS. A vector file read with `geopandas.read_file` in any CRS would do as
# well. Fields of fewer than 8 fused pixels are left out.

# %%
NAMES = {
    2: "corn, no till",
    3: "corn, min till",
    5: "grass, pasture",
    6: "grass, trees",
    8: "hay",
    10: "soy, no till",
    11: "soy, min till",
    12: "soy, clean",
    13: "wheat",
    14: "woods",
}
labels = np.load(files("tensorly") / "datasets" / "data" / "Indian_pines_gt.npy")[
    : truth.y.size, : truth.x.size
]
found = [
    (NAMES[int(label)], shape(outline))
    for outline, label in rasterio.features.shapes(labels, transform=truth.rio.transform())
    if label in NAMES
]
fields = geopandas.GeoDataFrame(found, columns=["crop", "geometry"], crs=truth.rio.crs)
fields["hectares"] = fields.area / 1e4
fields = fields[fields.hectares >= 8 * 0.04].reset_index(drop=True)
fields.groupby("crop").hectares.agg(["count", "min", "max"]).round(1)

# %%
figure, axes = plt.subplots(1, 3, figsize=(13, 4.6), layout="constrained", sharex=True, sharey=True)
for ax, cube, name in zip(
    axes, (hsi, fused, truth), ("HSI, 80 m", "fused, 20 m", "truth, 20 m"), strict=True
):
    picture = cube.csakd.rgb((860, 650, 550))
    picture.plot.imshow(ax=ax)
    fields.boundary.plot(ax=ax, color="yellow", linewidth=0.6)
    ax.set(title=f"{name}: {picture.title}", xlabel="", ylabel="", xticks=[], yticks=[], aspect="equal")
plt.show()


# %% [markdown]
# ## Indices
#
# Bands are picked by wavelength, so the same lines work for any sensor. Three indices:
#
# - NDVI, which the four MSI bands could give as well;
# - NDMI, moisture from 860 and 1640 nm: the MSI has no band in the short-wave infrared;
# - the red-edge position after Guyot and Baret (1988), from four narrow bands between 670 and 780 nm. It is
#   shown where there is vegetation (NDVI of the truth above 0.3).
#
# These are radiances: the indices compare the images with each other, they are not those of a reflectance product.


# %%
def bands(cube, *wavelengths):
    return (cube.csakd.sel_wavelength(nm).values for nm in wavelengths)


def ndvi(cube):
    red, nir = bands(cube, 670, 800)
    return (nir - red) / (nir + red)


def ndmi(cube):
    nir, swir = bands(cube, 860, 1640)
    return (nir - swir) / (nir + swir)


def red_edge(cube):
    r670, r700, r740, r780 = bands(cube, 670, 700, 740, 780)
    return 700 + 40 * ((r670 + r780) / 2 - r700) / (r740 - r700)


INDICES = {
    "NDVI": (ndvi, (0, 0.7), 0.2, "YlGn"),
    "NDMI": (ndmi, (0.4, 0.9), 0.2, "BrBG"),
    "red-edge position (nm)": (red_edge, (716, 726), 10, "viridis"),
}
green = ndvi(truth) > 0.3
repeated = hsi.isel(y=np.arange(144) // 4, x=np.arange(144) // 4)  # the HSI pixel around each
figure, axes = plt.subplots(3, 3, figsize=(12, 10.5), layout="constrained")
for (left, middle, right), (name, (index, limits, reach, cmap)) in zip(axes, INDICES.items(), strict=True):
    where = green if index is red_edge else np.ones_like(green)
    expected = index(truth)
    for ax, cube, kind in ((left, repeated, "HSI"), (middle, fused, "fused")):
        values = np.where(where, index(cube), np.nan)
        drawn = ax.imshow(values, vmin=limits[0], vmax=limits[1], cmap=cmap, interpolation="nearest")
        ax.set(title=f"{name}, {kind}", xticks=[], yticks=[])
        error = (values - expected)[where]
        label = f"{kind}, RMSE {np.sqrt(np.mean(error**2)):.3g}"
        right.hist(error, bins=np.linspace(-reach, reach, 81), histtype="step", lw=1.6, label=label)
    figure.colorbar(drawn, ax=middle, label=name, extend="both")
    right.set(title="error at 20 m", xlabel=f"{name} - that of the truth", ylabel="pixels")
    right.set_ylim(0, 1.25 * right.get_ylim()[1])
    right.legend(loc="upper right")
plt.show()

# %% [markdown]
# NDVI gains most: its detail is in the MSI itself. That of the moisture index comes through the correlation of the
# short-wave infrared with the MSI's bands. The red edge hardly varies within a field, so the HSI has most of it
# already, and fusion adds little.

# %% [markdown]
# ## The spectrum of a place
#
# `spectrum` takes coordinates in any CRS. The place lies in the smallest field, hardly larger than one HSI pixel.

# %%
field = fields.sort_values("hectares").iloc[0]
place = geopandas.GeoSeries([field.geometry.representative_point()], crs=fields.crs).to_crs("EPSG:4326")[0]
figure, ax = plt.subplots(figsize=(10, 3.6), layout="constrained")
for cube, label, style in ((truth, "truth", "k--"), (fused, "fused", "C1"), (hsi, "HSI pixel there", "C0")):
    found = cube.csakd.spectrum(place.x, place.y, crs="EPSG:4326")
    ax.plot(cube.csakd.wavelengths, found, style, linewidth=1.2, label=label)
ax.set(
    xlabel="wavelength (nm)",
    ylabel="radiance (µW cm$^{-2}$ nm$^{-1}$ sr$^{-1}$)",
    title=f"{place.y:.4f} N, {-place.x:.4f} W: {field.crop}, {field.hectares:.1f} ha",
)
ax.legend()
plt.show()

# %% [markdown]
# ## Spectra of fields
#
# `sample` gives each field its `count` of pixels, and mean and standard deviation of every band. A pixel counts where
# its centre lies in the field; points would get the pixel that they lie in.

# %%
spectra = fused.csakd.sample(fields)
spectra.iloc[:4, :6]

# %%
wavelength = fused.csakd.wavelengths
figure, axes = plt.subplots(1, 2, figsize=(13, 4), layout="constrained")
for color, crop in enumerate(("woods", "grass, pasture", "hay", "wheat", "corn, no till")):
    rows = spectra[spectra.crop == crop]
    weight = rows["count"].to_numpy()[:, None]
    mean = (rows.filter(like="mean_") * weight).sum().to_numpy() / weight.sum()
    spread = (rows.filter(like="std_") * weight).sum().to_numpy() / weight.sum()
    axes[0].plot(wavelength, mean, color=f"C{color}", label=f"{crop} ({len(rows)})")
    axes[0].fill_between(wavelength, mean - spread, mean + spread, color=f"C{color}", alpha=0.2, linewidth=0)
axes[0].set(
    xlim=(400, 1800),
    xlabel="wavelength (nm)",
    ylabel="radiance (µW cm$^{-2}$ nm$^{-1}$ sr$^{-1}$)",
    title="mean of all fields, and the spread within one (fused)",
)
axes[0].legend()

reference = truth.csakd.sample(fields).filter(like="mean_").to_numpy()
angles = {}
for name, cube, marker in (("HSI", hsi, "o"), ("fused", fused, "^")):
    mean = cube.csakd.sample(fields).filter(like="mean_").to_numpy()
    norm = np.linalg.norm(mean, axis=1) * np.linalg.norm(reference, axis=1)
    angle = np.degrees(np.arccos(np.clip((mean * reference).sum(axis=1) / norm, -1, 1)))
    axes[1].loglog(
        fields.hectares, angle, marker, alpha=0.8, label=f"{name}, median {np.nanmedian(angle):.2f}°"
    )
    angles[name] = angle
axes[1].vlines(fields.hectares, angles["HSI"], angles["fused"], color="grey", linewidth=0.6, zorder=0)
axes[1].axvline(0.64, color="grey", linewidth=0.8)
axes[1].text(0.66, axes[1].get_ylim()[0] * 1.2, "one HSI pixel", color="grey")
axes[1].set(
    xlabel="area of the field (ha)",
    ylabel="angle to the true spectrum (degrees)",
    title="error of a field's mean spectrum",
)
axes[1].set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
axes[1].set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
axes[1].minorticks_off()
axes[1].legend()
plt.show()
closer = int((angles["fused"] < angles["HSI"]).sum())
missed = int(np.isnan(angles["HSI"]).sum())
print(
    f"Fusion brings {closer} of {len(fields)} fields closer to the truth; {missed} hold no centre of an HSI pixel."
)

# %% [markdown]
# A field's mean in the HSI has a share of its neighbours in every pixel at its border, so the large errors are those of
# fields of a few hectares; there fusion helps most. The mean of a large field is good in the HSI already.
#
# ## Other sensors, and out
#
# `resample_spectra` computes what another sensor's bands would see; `to_cog` and `to_zarr` write through the package's
# own writers, with wavelengths in every band, and the engine reads them back. A GeoDataFrame goes into a GeoPackage.

# %%
landsat = fused.csakd.resample_spectra("landsat8")
print(*landsat.band_name.values, sep=", ")
fused.csakd.to_cog(folder / "fused.tif")
again = csakd_geo.open_cube(folder / "fused.tif")
print(f"largest difference after int16: {float(abs(again - fused.values).max()):.1e}")
spectra.to_file(folder / "fields.gpkg")
print(
    len(geopandas.read_file(folder / "fields.gpkg")), "fields with", len(wavelength), "bands in fields.gpkg"
)
