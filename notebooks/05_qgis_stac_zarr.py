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
# # Into QGIS, STAC and Zarr
#
# What leaves the package: a Cloud Optimized GeoTIFF with overviews and a style, a STAC item beside it, a Zarr store for
# analysis, and points with spectra as a GeoPackage. Each is read back by a library that did not write it.

# %%
import json
import tempfile
import textwrap
import time
from pathlib import Path

import geopandas
import matplotlib.pyplot as plt
import numpy as np
import pystac
import rasterio
import xarray as xr
from shapely.geometry import shape

import csakd_geo
from csakd_geo.draft import draft_job
from csakd_geo.evaluate import evaluate
from csakd_geo.options import make_options
from csakd_geo.product import make_product
from csakd_geo.sample import write_sample
from csakd_geo.simulate import simulate
from csakd_geo.stac import write_item

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A pair
#
# The visible and near infrared bands of the embedded sample (AVIRIS, Indian Pines, 12 June 1992), mirrored four times
# along each axis: overviews need a scene of more than one block. Only the upper left corner is where it says. The date
# in the HSI's name is read by the STAC item.

# %%
SIDE = 576
sample = csakd_geo.open_cube(write_sample(folder / "sample").truth)
small = sample.csakd.sel_wavelength(slice(400, 1000)).load()
more = SIDE - small.x.size
scene = small.pad(y=(0, more), x=(0, more), mode="symmetric").assign_coords(
    y=float(small.y[0]) - 20.0 * np.arange(SIDE), x=float(small.x[0]) + 20.0 * np.arange(SIDE)
)
scene.csakd.to_cog(folder / "scene.tif")
pair = simulate(folder / "scene.tif", folder, ratio=4, msi_sensor="sentinel2-10m", snr_hsi=35, snr_msi=40)
hsi = pair.hsi.rename(folder / "aviris_19920612_hsi.tif")
msi = pair.msi.rename(folder / "made_19920612_msi.tif")


# %% [markdown]
# ## A COG and its STAC item
#
# In the shell this is `csakd-geo fuse aviris_19920612_hsi.tif made_19920612_msi.tif -o fused.tif --method gsa --stac`; GSA because it
# is quick, and this is about files.


# %%
def fuse_to(name, **options):
    draft = draft_job(hsi, msi, make_options({"method": "gsa", **options}))
    return make_product(draft, folder / name, report=lambda *_: None)[1]


product = fuse_to("fused.tif", format="cog")
item_path = write_item(folder / "fused.tif", hsi=hsi, msi=msi)
scores = evaluate(folder / "fused.tif", pair.truth, ratio=4).scores
print(f"PSNR {scores.psnr:.2f} dB, SAM {scores.sam:.3f} degrees; {product.seconds}")

# %% [markdown]
# An overview is what a viewer reads first. Here rasterio reads three bands of the finest and the coarsest level; a band
# is found by the wavelength that its tags state.

# %%
with rasterio.open(folder / "fused.tif") as src:
    centres = np.array([float(src.tags(k)["wavelength"]) for k in src.indexes])
    levels, scale = src.overviews(1), src.scales[0]
bands = [int(np.abs(centres - nm).argmin()) + 1 for nm in (650, 550, 475)]


def read_rgb(**level):
    begun = time.perf_counter()
    with rasterio.open(folder / "fused.tif", **level) as src:
        return src.read(bands) * scale, time.perf_counter() - begun


coarse, quick = read_rgb(overview_level=len(levels) - 1)
fine, slow = read_rgb()
low, high = np.percentile(fine, [2, 98], axis=(1, 2))

figure, axes = plt.subplots(1, 3, figsize=(13, 4.5), layout="constrained")
titles = (
    f"whole scene, overview 1:{levels[-1]}\n{coarse.shape[1]} x {coarse.shape[2]} pixels read in {1000 * quick:.0f} ms",
    f"whole scene, full resolution\n{fine.shape[1]} x {fine.shape[2]} pixels read in {1000 * slow:.0f} ms",
    "a corner at full resolution\n",
)
for ax, image, title in zip(axes, (coarse, fine, fine[:, :144, :144]), titles, strict=True):
    shown = (image - low[:, None, None]) / (high - low)[:, None, None]
    ax.imshow(np.clip(shown, 0, 1).transpose(1, 2, 0), interpolation="nearest")
    ax.set(title=title, xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## The item, read by pystac

# %%
item = pystac.Item.from_file(str(item_path))
shown = (
    "datetime",
    "csakd:datetime_from",
    "proj:code",
    "proj:shape",
    "processing:lineage",
    "csakd:psf_fwhm_hsi_pixels",
)
for key in shown:
    value = item.datetime if key == "datetime" else item.properties[key]
    print(*textwrap.wrap(f"{key}: {value}", 110, subsequent_indent="    "), sep="\n")
asset = item.assets["fused"]
print(asset.media_type, len(asset.extra_fields["bands"]), "bands; the tenth:")
print(json.dumps(asset.extra_fields["bands"][9]))

# %% [markdown]
# ## QGIS
#
# `csakd-geo qgis install` puts the commands into the Processing toolbox; then the whole chain runs without the desktop:

# %%
print(
    f"""qgis_process run csakd:fuse -- \\
    HSI={hsi.name} MSI={msi.name} METHOD=gsa OUTPUT=fused.tif"""
)

# %% [markdown]
# Run there, the fused image has a style beside it, which QGIS finds whenever the image is added. A product of the
# shell or of Python gets none; this is all that it takes: three bands, each stretched from its 2nd to its 98th
# percentile.

# %%
colors = {
    color: f"""
      <{color}ContrastEnhancement>
        <minValue>{a:.6g}</minValue>
        <maxValue>{b:.6g}</maxValue>
        <algorithm>StretchToMinimumMaximum</algorithm>
      </{color}ContrastEnhancement>"""
    for color, a, b in zip(("red", "green", "blue"), low, high, strict=True)
}
style = f"""<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis>
  <pipe>
    <rasterrenderer type="multibandcolor" redBand="{bands[0]}" greenBand="{bands[1]}" blueBand="{bands[2]}" opacity="1" alphaBand="-1">{"".join(colors.values())}
    </rasterrenderer>
  </pipe>
</qgis>
"""
(folder / "fused.qml").write_text(style)
print(style)

# %% [markdown]
# ## Zarr
#
# The same run into Zarr v3, with overviews as groups of their own (`--overviews`). The root's attributes follow the
# conventions that GeoZarr is made of, so a reader that knows them finds CRS, place and levels. For GDAL and QGIS there
# is `--format zarr2`.

# %%
fuse_to("fused.zarr", format="zarr", overviews=True)
store = xr.open_zarr(folder / "fused.zarr")
for level in store.attrs["multiscales"]["layout"]:
    print(level["asset"], level["spatial:shape"], "pixels of", level["spatial:transform"][0], "m")
with rasterio.open(folder / "fused.tif") as src:
    cog = src.read() * np.float32(scale)
apart = float(np.abs(store.fused.values - cog).max())
print(f"largest difference between the COG and the store: {apart:.1e} in radiances of about {cog.mean():.0f}")

# %% [markdown]
# ## Longitude and latitude, and points with spectra
#
# The coarsest level is enough for a map, and rioxarray reprojects it. Points go in and come out in any CRS; `sample`
# reads the spectrum of the pixel that each lies in, and a GeoPackage takes the frame to QGIS.

# %%
level = xr.open_zarr(folder / "fused.zarr", group="overview_4", decode_coords="all").fused
composite = level.csakd.rgb().transpose("rgb", "y", "x").rio.write_crs(level.rio.crs)
preview = composite.rio.reproject("EPSG:4326", nodata=np.nan)

image = csakd_geo.open_cube(folder / "fused.tif")

places = {"woods": (123, 107), "soy": (79, 53), "hay": (47, 130), "stone and steel": (16, 48)}
points = geopandas.GeoDataFrame(
    {"place": list(places)},
    geometry=geopandas.points_from_xy(
        [float(image.x[column]) for _, column in places.values()],
        [float(image.y[row]) for row, _ in places.values()],
    ),
    crs=image.rio.crs,
).to_crs("EPSG:4326")
spectra = image.csakd.sample(points)
spectra.to_file(folder / "points.gpkg")
again = geopandas.read_file(folder / "points.gpkg")

order = np.argsort(image.csakd.wavelengths)
figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
preview.transpose("y", "x", "rgb").plot.imshow(ax=left)
outline = geopandas.GeoSeries([shape(item.geometry)], crs="EPSG:4326")
outline.boundary.plot(ax=left, color="C8", linewidth=3)
for k, row in again.iterrows():
    left.plot(row.geometry.x, row.geometry.y, "o", color=f"C{k}", markeredgecolor="white")
    right.plot(
        image.csakd.wavelengths[order], row.filter(like="mean_").iloc[order], color=f"C{k}", label=row.place
    )
left.set(
    title="the overview in longitude and latitude, and the item's footprint",
    xlabel="longitude (°)",
    ylabel="latitude (°)",
)
left.ticklabel_format(useOffset=False)
left.locator_params(nbins=5)
west, south, east, north = outline.total_bounds
left.set(xlim=(west - 0.003, east + 0.003), ylim=(south - 0.003, north + 0.003))
left.set_aspect(1 / np.cos(np.radians(40.42)))
right.set(
    title=f"spectra of points.gpkg ({len(again)} points, {again.shape[1]} columns)",
    xlabel="wavelength (nm)",
    ylabel="radiance (µW cm$^{-2}$ nm$^{-1}$ sr$^{-1}$)",
)
right.legend()
plt.show()
