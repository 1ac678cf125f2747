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
# # Large scenes on Dask
#
# A scene is cut into super-tiles on one lattice. What is estimated (PSF, responses, subspace) is estimated once for the
# scene; the super-tiles are then computed by whoever is there, in any order, and a run that was stopped goes on. This
# notebook does all of it on a scene small enough to wait for: two workers, 36 super-tiles, a stop in between.

# %%
import importlib.util
import logging
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from distributed import Client, LocalCluster, get_task_stream

import csakd_geo
from csakd_geo.draft import draft_job
from csakd_geo.engine.store import Store
from csakd_geo.evaluate import evaluate
from csakd_geo.metrics import seam_energy
from csakd_geo.options import make_options
from csakd_geo.product import make_product
from csakd_geo.sample import write_sample
from csakd_geo.simulate import simulate

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A scene of 576 x 576 pixels
#
# Every fourth band of the embedded sample, mirrored four times along each axis, and degraded to a pair by Wald's
# protocol. (The repetition is in the landscape only; noise is drawn anew everywhere.)

# %%
SIDE = 576
truth = csakd_geo.open_cube(write_sample(folder / "sample").truth).isel(band=slice(None, None, 4)).load()
more = SIDE - truth.x.size
scene = truth.pad(y=(0, more), x=(0, more), mode="symmetric").assign_coords(
    y=float(truth.y[0]) - 20.0 * np.arange(SIDE), x=float(truth.x[0]) + 20.0 * np.arange(SIDE)
)
scene.csakd.to_cog(folder / "scene.tif")
pair = simulate(
    folder / "scene.tif",
    folder / "pair",
    ratio=4,
    msi_sensor="sentinel2-10m",
    snr_hsi=35,
    snr_msi=40,
)
print(f"{SIDE} x {SIDE} pixels, {scene.band.size} bands: {scene.nbytes / 1e6:.0f} MB as float32")


# %% [markdown]
# ## Workers
#
# A `LocalCluster` here; on other machines `dask worker` processes, SLURM jobs or one worker per GPU
# (docs/large_scenes.md). `processes=False` keeps both workers in this process, which works wherever a notebook runs;
# for speed take processes, as `csakd-geo fuse --workers 2` does. One thread each, since a super-tile uses several
# cores by itself where it pays.
#
# The link leads to Dask's dashboard: tasks as they run, memory, progress. It needs the package bokeh; without it the
# page only says so.


# %%
def start_workers():
    return LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        dashboard_address="127.0.0.1:0",  # any free port
        silence_logs=logging.CRITICAL,  # a stop is no fault here
    )


cluster = start_workers()
client = Client(cluster)
there = "" if importlib.util.find_spec("bokeh") else "  (bokeh is not installed: pip install bokeh)"
print(f"dashboard: {client.dashboard_link}{there}")

# %% [markdown]
# ## Lazy: only what is looked at
#
# `fuse` fits at the call and returns a cube on Dask whose chunks are the super-tiles. A look at a corner computes the
# one super-tile that it lies in.

# %%
OPTIONS = {"method": "coupled-map", "supertile": 96, "tile": 96}
cube = csakd_geo.fuse(pair.hsi, pair.msi, **OPTIONS)
with get_task_stream(client) as looked:
    corner = cube[:, 100:150, 200:280].compute()
computed = sum("fuse" in task["key"] for task in looked.data)
print(f"{cube.data.npartitions} super-tiles of {cube.data.chunksize} pixels; computed: {computed}")

# %% [markdown]
# ## A run that is stopped
#
# `make_product` is what `csakd-geo fuse ... -o fused.zarr` calls: it fits, has the super-tiles computed and stored one
# by one in `fused.zarr.part`, and makes the product of them. The progress report raises `KeyboardInterrupt` after
# two fifths, which is what Ctrl-C does; then the workers go, too.

# %%
target = folder / "fused.zarr"


def draft_on(cluster):
    options = make_options({**OPTIONS, "scheduler": cluster.scheduler_address, "format": "zarr"})
    return draft_job(pair.hsi, pair.msi, options)


def stop_early(stage, share, words):
    if stage == "fuse" and share >= 0.4:
        raise KeyboardInterrupt


streams = {}
with get_task_stream(client) as streams["stopped"]:
    try:
        make_product(draft_on(cluster), target, report=stop_early)
    except KeyboardInterrupt:
        print("stopped;", "there is no product" if not target.exists() else "?")
client.close()
cluster.close()
kept = set(Store(target).done())
print(f"{len(kept)} finished super-tiles in {target.name}.part")

# %% [markdown]
# ## It goes on
#
# New workers, `resume=True` (`--resume` in the shell). Other settings or changed inputs would be refused. The fit is
# read back, finished super-tiles are checked and kept, the rest is computed.

# %%
with start_workers() as cluster, Client(cluster) as client, get_task_stream(client) as streams["resumed"]:
    job, product = make_product(draft_on(cluster), target, report=lambda *_: None, resume=True)
print(f"fused in {product.seconds['fuse']:.1f} s, written in {product.seconds['write']:.1f} s")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained", width_ratios=(2, 1))
row, busy, ticks = 0, {}, []
for color, (name, stream) in zip(("C1", "C0"), streams.items(), strict=True):
    tasks = [task for task in stream.data if "write" in task["key"]]
    begun = min(s["start"] for task in tasks for s in task["startstops"])
    for worker in sorted({task["worker"] for task in tasks}):
        spans = [
            (s["start"] - begun, s["stop"] - s["start"])
            for task in tasks
            for s in task["startstops"]
            if task["worker"] == worker and s["action"] == "compute"
        ]
        left.broken_barh(spans, (row - 0.4, 0.8), color=color, edgecolor="white")
        busy[name] = busy.get(name, []) + [length for _, length in spans]
        ticks.append(f"{name}, worker {row % 2 + 1}")
        row += 1
left.set(
    title="who computed when: one bar per super-tile",
    xlabel="seconds since the first super-tile of the run",
    yticks=range(row),
    yticklabels=ticks,
)
left.invert_yaxis()

areas = job.plan.supertiles()  # in HSI pixels, four times as large
for area in areas:
    color = "C1" if (area.row, area.col) in kept else "C0"
    corner_of = 4 * area.col, 4 * area.row
    right.add_patch(plt.Rectangle(corner_of, 4 * area.width, 4 * area.height, color=color, ec="white"))
right.set(
    xlim=(0, SIDE),
    ylim=(SIDE, 0),
    aspect="equal",
    title=f"{len(kept)} super-tiles kept, {len(areas) - len(kept)} computed after",
    xlabel="column (pixels)",
    ylabel="row (pixels)",
    xticks=range(0, SIDE + 1, 96),
    yticks=range(0, SIDE + 1, 96),
)
plt.show()

# %% [markdown]
# Super-tiles come in no particular order, and one that was being computed at the stop has no bar, and is kept where its
# worker could finish it. The result does not depend on any of that.
#
# ## The product
#
# A Zarr store with one shard per super-tile; `xarray.open_zarr` and `csakd_geo.open_cube` read it lazily. Against the
# lazy corner from above it may differ by rounding to int16, by no more. Seams would show as steps at the borders of
# super-tiles: `seam_energy` compares the steps there with those elsewhere (1: no difference; what is linear in the
# MSI's own steps is taken off first), and the error would rise towards the borders.

# %%
fused = csakd_geo.open_cube(target).load()
step = float(xr.open_zarr(target, mask_and_scale=False).fused.attrs["scale_factor"])
apart = float(np.abs(fused[:, 100:150, 200:280].values - corner.values).max())
print(f"lazy corner and product differ by {apart:.1e} at most, half a step of int16 is {step / 2:.1e}")
expected = csakd_geo.open_cube(pair.truth).load()
guide = csakd_geo.open_cube(pair.msi).values
seams = seam_energy(fused.values, 96, guide=guide, period=4)
scores = evaluate(target, pair.truth, ratio=4).scores
print(f"PSNR {scores.psnr:.2f} dB, SAM {scores.sam:.3f} degrees, seam energy {seams:.2f}")

error = np.sqrt(np.mean((fused.values - expected.values) ** 2, axis=0))
away = np.minimum(np.arange(SIDE) % 96, 95 - np.arange(SIDE) % 96)
distance = np.minimum(away[:, None], away[None, :])

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
left.imshow(fused.csakd.rgb())
left.set(title="fused, true colour", xticks=[], yticks=[])
shown = middle.imshow(error, cmap="magma", vmin=0, vmax=np.percentile(error, 99))
middle.vlines(range(96, SIDE, 96), 0, SIDE - 1, color="white", lw=0.4)
middle.hlines(range(96, SIDE, 96), 0, SIDE - 1, color="white", lw=0.4)
middle.set(title="RMSE of each pixel, and the super-tiles", xticks=[], yticks=[])
figure.colorbar(shown, ax=middle, label="RMSE (µW cm$^{-2}$ nm$^{-1}$ sr$^{-1}$)")
profile = [float(error[distance == d].mean()) for d in range(48)]
right.plot(range(48), profile, "o-", ms=3)
right.axhline(error.mean(), color="grey", lw=0.8)
right.set(
    title="error near the borders and away from them",
    xlabel="distance to the border of the super-tile (pixels)",
    ylabel="mean RMSE of the pixels there",
    ylim=(0, 1.5 * max(profile)),
)
plt.show()
