"""Networks as ONNX: two graphs that another runtime can use tile by tile."""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from ..errors import ModelError, OutputError
from .attention import AttentionSums
from .card import ModelCard
from .checkpoint import Model

if TYPE_CHECKING:
    import onnxruntime

    from .onnx_graphs import Kind

FloatArray = NDArray[np.float32]

_KINDS: tuple[Kind, ...] = ("fusion", "statistics")
_KEY = "csakd_geo_"  # of the graphs' metadata: card, ratio, version, graph


@dataclass(frozen=True, slots=True, eq=False)
class OnnxNetwork:
    """A network in ONNX Runtime, on the CPU.

    Parameters
    ----------
    card
        Facts of the model that it was exported from.
    ratio
        HSI pixel size / MSI pixel size, fixed in the graphs.
    applied, statistics
        Sessions of the two graphs; the second is None where the network has no global attention.
    """

    card: ModelCard
    ratio: int
    applied: onnxruntime.InferenceSession
    statistics: onnxruntime.InferenceSession | None

    def fuse(
        self,
        hsi: FloatArray,
        msi: FloatArray,
        *,
        base: FloatArray | None = None,
        sums: AttentionSums | None = None,
    ) -> FloatArray:
        """Fuse one tile.

        Parameters
        ----------
        hsi, msi, base
            Shapes (1, band, y, x), (1, msi_band, ratio * y, ratio * x), (1, band, ratio * y, ratio * x);
            `base` for residual networks alone.
        sums
            The scene's attention sums, for networks with global attention alone.

        Returns
        -------
        (1, band, ratio * y, ratio * x) array
        """
        inputs: dict[str, Any] = {"hsi": hsi, "msi": msi}
        if base is not None:
            inputs["base"] = base
        if sums is not None:
            inputs |= sums.to_arrays()
        return np.asarray(self.applied.run(["fused"], inputs)[0], dtype=np.float32)

    def sums(self, hsi: FloatArray, msi: FloatArray, core: FloatArray) -> AttentionSums | None:
        """Take one tile's attention sums over the pixels where `core` (1, 1, ratio * y, ratio * x) is 1."""
        if self.statistics is None:
            return None
        return AttentionSums(*self.statistics.run(["qk", "qq", "kk"], {"hsi": hsi, "msi": msi, "core": core}))


def statistics_path(path: Path) -> Path:
    """Name of the second graph, beside the first."""
    return path.with_name(f"{path.stem}.statistics.onnx")


def export_onnx(model: Model, path: Path, *, ratio: int, overwrite: bool = False) -> list[Path]:
    """Write a network as ONNX; files appear when they agree with torch and not before.

    The first graph fuses: inputs ``hsi``, ``msi``, for residual networks ``base``, for networks with global
    attention the scene's sums ``qk``, ``qq``, ``kk`` (float64); output ``fused``. The second, for the latter
    networks alone, takes these sums from ``hsi``, ``msi`` and ``core``, a map of ones where pixels count and
    zeros in the halo; sums of tiles add up to the scene's. Height and width are free, the ratio is fixed.

    Parameters
    ----------
    model
        Network and card.
    path
        Target, ending in ``.onnx``.
    ratio
        HSI pixel size / MSI pixel size.
    overwrite
        Replace files that exist.

    Returns
    -------
    list of Path
        One file, or two.

    Raises
    ------
    ModelError
        The ratio is not one that the model is made for, ONNX is not installed, or its result differs.
    OutputError
        A target exists or cannot be written.
    """
    from .onnx_check import TOLERANCE, verify_onnx

    _require("onnx", "onnxruntime", "onnxscript")
    _check_ratio(model.card, ratio)
    targets = [path, statistics_path(path)] if model.network.config.needs_statistics else [path]
    _check_targets(targets, overwrite)
    graphs = [_graph(model, ratio, kind) for _, kind in zip(targets, _KINDS, strict=False)]
    found = verify_onnx(model, _from_bytes(path.name, *graphs))
    if not all(scene.holds for scene in found):
        worst = max(max(scene.whole, scene.tiled) for scene in found)
        raise ModelError(
            f"Model {model.card.name} gives another result in ONNX Runtime than in torch (relative error "
            f"{worst:.1e}, allowed {TOLERANCE:.0e}), so nothing was written; please report it."
        )
    _write(dict(zip(targets, graphs, strict=True)))
    return targets


def load_onnx(path: Path) -> OnnxNetwork:
    """Open what `export_onnx` wrote.

    Raises
    ------
    ModelError
        A file is missing, damaged, from elsewhere or of another export, or ONNX Runtime is not installed.
    """
    _require("onnxruntime")
    graphs = [_read(path)]
    other = statistics_path(path)
    if other.is_file():
        graphs.append(_read(other))
    return _from_bytes(path.name, *graphs)


def _graph(model: Model, ratio: int, kind: Kind) -> bytes:
    """One graph with its metadata."""
    from .onnx_graphs import trace

    proto = trace(model.network, ratio, kind)
    facts = {"card": model.card.to_json(), "ratio": str(ratio), "version": __version__}
    for key, value in (facts | {"graph": kind}).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = f"{_KEY}{key}", value
    proto.producer_name, proto.producer_version = "csakd_geo", __version__
    return bytes(proto.SerializeToString())


def _from_bytes(name: str, *graphs: bytes) -> OnnxNetwork:
    """Open the graph that fuses and, where there is one, that of the sums."""
    opened = [_session(name, data) for data in graphs]
    facts = [_facts(name, session) for session in opened]
    card = ModelCard.from_json(facts[0]["card"])
    needed = 2 if card.network.needs_statistics else 1
    if len(opened) < needed:
        raise ModelError(
            f"{name} needs {statistics_path(Path(name)).name} beside it for the scene's attention sums; export "
            "the model anew."
        )
    for kind, found in zip(_KINDS[:needed], facts, strict=False):
        if found["graph"] != kind or found["card"] != facts[0]["card"] or found["ratio"] != facts[0]["ratio"]:
            raise ModelError(
                f"{name} and {statistics_path(Path(name)).name} are not of one export; export the model anew."
            )
    return OnnxNetwork(card, int(facts[0]["ratio"]), opened[0], opened[1] if needed == 2 else None)


def _session(name: str, data: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no public class of their own
        raise ModelError(f"{name} is damaged or no ONNX file; export it anew.") from error


def _facts(name: str, session: onnxruntime.InferenceSession) -> dict[str, str]:
    stored = session.get_modelmeta().custom_metadata_map
    try:
        facts = {key: stored[_KEY + key] for key in ("card", "ratio", "graph")}
        int(facts["ratio"])
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{name} is no ONNX file of this package: it states no model card and ratio; write one with "
            "csakd-geo model export."
        ) from error
    return facts


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"ONNX file {path} cannot be read: {error.strerror or error}.") from error


def _require(*names: str) -> None:
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ModelError(
                f'ONNX needs the package {name}, which is not installed: pip install "csakd-geo[onnx]".'
            ) from error


def _check_ratio(card: ModelCard, ratio: int) -> None:
    if card.ratio is None:
        return
    least, most = (card.ratio, card.ratio) if isinstance(card.ratio, int) else card.ratio
    if not least <= ratio <= most:
        wanted = f"{least}" if least == most else f"{least} to {most}"
        raise ModelError(f"Model {card.name} is made for a ratio of {wanted}, not {ratio}.")


def _check_targets(targets: list[Path], overwrite: bool) -> None:
    first = targets[0]
    if first.suffix != ".onnx":
        raise OutputError(f"An ONNX file ends in .onnx; {first.name} does not.")
    if not first.parent.is_dir():
        raise OutputError(f"The folder {first.parent} does not exist; make it first.")
    for target in targets:
        if target.is_dir():
            raise OutputError(f"{target} is a folder; give the name of a file.")
        if target.exists() and not overwrite:
            raise OutputError(f"{target} exists; allow it to be replaced (--overwrite) or name another file.")


def _write(files: dict[Path, bytes]) -> None:
    """Write beside the targets, check what lies there, then move all into place."""
    import onnx

    parts = {path: path.with_name(f".{path.stem}-{secrets.token_hex(4)}.part") for path in files}
    try:
        for path, data in files.items():
            parts[path].write_bytes(data)
            onnx.checker.check_model(str(parts[path]), full_check=True)
        for path, part in parts.items():
            os.replace(part, path)
    except OSError as error:
        first = next(iter(files))
        raise OutputError(f"{first} cannot be written: {error.strerror or error}.") from error
    finally:
        for part in parts.values():
            with contextlib.suppress(OSError):  # the folder may be the very thing that is missing
                part.unlink(missing_ok=True)
