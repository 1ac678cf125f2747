"""From the numbers to one HTML page that loads nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from csakd_geo.quality import FLAGS
from csakd_geo.report.content import SUPPORTED, Content
from csakd_geo.report.pieces import count_bands, definitions, stretches, table

_SCORES = ("PSNR", "SAM", "ERGAS")
_UNITS = {"metre": "m", "meter": "m", "degree": "°"}


def draw_page(content: Content) -> str:
    """The whole page.

    Parameters
    ----------
    content : Content
    """
    folder = files("csakd_geo.report")
    parts = {name: (folder / name).read_text("utf-8") for name in ("page.html", "page.css", "page.js")}
    data = {**content.data, "views": content.views}
    return Template(parts["page.html"]).substitute(
        title=escape(content.link.fused.name),
        subtitle=escape(_subtitle(content)),
        style=parts["page.css"],
        script=parts["page.js"],
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
        cards=_cards(content),
        warnings=_warnings(content),
        unsupported=_unsupported(content),
        uncertain=escape(_uncertain(content)),
        flags=_flags(content),
        msi_table=_msi_table(content),
        no_reference=_no_reference(content),
        held_out=_held_out(content),
        found=definitions(_found(content)),
        times=definitions(_times(content)),
        made=definitions(_made(content)),
        settings=definitions(_settings(content), boxed=True),
        footer=escape(_footer(content)),
    )


def _subtitle(content: Content) -> str:
    fused, facts = content.link.fused, content.facts
    crs = fused.crs.to_string() if fused.crs else "no CRS"
    if fused.crs and not crs.startswith("EPSG"):
        crs = fused.crs.to_dict().get("name") or "own CRS"
    gsd = content.link.scene.grid.gsd
    return (
        f"{fused.height:,} × {fused.width:,} pixels of {f'{gsd:.6g} {_unit(content)}'.strip()} · {fused.axis.size} bands · {crs} · "
        f"{facts['hsi']} + {facts['msi']}, ratio {facts['ratio']}"
    )


def _unit(content: Content) -> str:
    crs = content.link.fused.crs
    name = str(crs.units_factor[0]) if crs else ""
    return _UNITS.get(name, name)


def _cards(content: Content) -> str:
    """The numbers that matter, large."""
    facts, found = content.facts, content.consistency
    cards = [("Method", str(facts["method"]), str(facts.get("method_reason", "")))]
    if content.evaluation is not None:
        s = content.evaluation.scores
        cards.append(("PSNR", f"{s.psnr:.2f} dB", "against the truth"))
        cards.append(("Spectral angle", f"{s.sam:.3f}°", "against the truth"))
    if math.isfinite(found.scores.hqnr):
        parts = f"Dλ\u00a0{found.scores.d_lambda:.4f}, Dₛ\u00a0{found.scores.d_s:.4f}"
        cards.append(("HQNR", f"{found.scores.hqnr:.4f}", parts))
    cards.append(("HSI consistency", f"{100 * found.hsi.overall:.2f} %", "degraded result less HSI"))
    if found.msi is not None:
        cards.append(("MSI consistency", f"{100 * found.msi.overall:.2f} %", "projected result less MSI"))
    share = int(content.unsupported.sum())
    cards.append(
        ("Unsupported bands", f"{share} of {len(content.link.bands)}", "detail that the MSI cannot tell")
    )
    seconds = _seconds(content)
    if seconds is not None:
        cards.append(("Time", f"{seconds:.1f} s", "fit and fuse"))
    return "".join(
        f'<div class="card"><span>{escape(name)}</span><b>{escape(value)}</b><small>{escape(text)}</small></div>'
        for name, value, text in cards
    )


def _seconds(content: Content) -> float | None:
    times = [content.facts[name] for name in ("fit_seconds", "fuse_seconds") if name in content.facts]
    return float(sum(times)) if times else None


def _warnings(content: Content) -> str:
    sentences = list(content.facts.get("warnings") or [])
    if content.evaluation is not None:
        sentences += content.evaluation.warnings
    if int(content.facts.get("clipped_values") or 0):
        sentences.append(
            f"{content.facts['clipped_values']:,} values did not fit the stored type and were clipped."
        )
    sentences += [*content.link.remarks(content.facts), *content.layers.remarks]
    if not sentences:
        return '<p class="fine">No warnings.</p>'
    return '<ul class="warnings">' + "".join(f"<li>{escape(s)}</li>" for s in sentences) + "</ul>"


def _unsupported(content: Content) -> str:
    """Which bands the MSI cannot support, in words."""
    flagged, axis = content.unsupported, content.data["axis"]
    share = f"{SUPPORTED:.0%}"
    if not flagged.any():
        return f"In every band at least {share} of what varies follows from the MSI."
    return (
        f"In {count_bands(flagged)} less than {share} of what varies follows from the MSI, so do not read much "
        f"into the fine detail there: {stretches(flagged, axis)}."
    )


def _uncertain(content: Content) -> str:
    """What the standard deviations are, and in which bands the MSI was no help."""
    found = content.layers.deviations
    if found is None:
        return ""
    if not found.tried:
        return (
            "The pair was too small to try the fusion: deviations are those of the whole bands, far too wide."
        )
    text = "The result ± 1.645 standard deviations is meant to hold nine of ten truths."
    if math.isfinite(content.inside):
        text += f" Of this truth {100 * content.inside:.1f} % lie inside, less by its own noise."
    if found.informed.all():
        return text
    alone = ~found.informed
    return (
        f"{text} In {count_bands(alone)} the MSI was no help one resolution level down, and they are those of an "
        f"interpolation: {stretches(alone, content.data['axis'])}."
    )


def _flags(content: Content) -> str:
    """Share of the pixels with each flag of the quality layer."""
    found = content.layers.flags
    if found is None:
        return ""
    rows = [[f"{name} ({bit})", _share(found[name]), words] for bit, name, words in FLAGS]
    told = table(["Flag", "Share of pixels", "Meaning"], rows)
    return f'<section class="flags"><h2>Quality</h2>{told}</section>'


def _share(value: float) -> str:
    if value == 0:
        return "none"
    return f"{100 * value:.2f} %" if value >= 1e-4 else "< 0.01 %"


def _msi_table(content: Content) -> str:
    link, found = content.link, content.consistency.msi
    head = ["MSI band", "Centre", "Gain", "Offset", "Relative RMSE", "Bias", "Correlation"]
    head += ["UIQI, fine", "UIQI, coarse", "Dₛ"]
    scores = content.consistency.scores
    rows = []
    for k, band in enumerate(link.scene.msi_bands):
        nm = link.scene.msi.axis.wavelength[band]
        row = [
            link.msi_names[k],
            f"{nm:.0f} nm" if math.isfinite(nm) else "–",
            f"{link.response.gain[k]:.4g}",
            f"{link.response.offset[k]:.3g}",
        ]
        if found is not None:
            row += [f"{100 * found.relative[k]:.2f} %", f"{found.bias[k]:+.2g}", f"{found.cc[k]:.4f}"]
            row += [f"{v[k]:.4f}" for v in (scores.fine, scores.coarse, scores.d_s_bands)]
        rows.append(row)
    return table(head[: len(rows[0])], rows)


def _no_reference(content: Content) -> str:
    """HQNR and where it comes from, in words."""
    scores = content.consistency.scores
    if not math.isfinite(scores.hqnr):
        return ""
    return (
        f"HQNR {scores.hqnr:.4f} = (1 − Dλ)(1 − Dₛ), 1 at best. Dλ {scores.d_lambda:.4f} is 1 less the Q2n index of "
        f"the degraded result against the HSI. Dₛ {scores.d_s:.4f} is the mean over MSI bands of how far UIQI of the "
        "projected result against the MSI (fine) lies from that of the projected HSI against the degraded MSI "
        "(coarse). It needs no truth, and it does not replace one: it tells whether the result agrees with its two "
        "inputs."
    )


def _held_out(content: Content) -> str:
    scores = content.facts.get("held_out_scores") or {}
    if not scores:
        return ""
    rows = [
        [name, *(f"{values[key.lower()]:.3f}" if key.lower() in values else "–" for key in _SCORES)]
        for name, values in scores.items()
    ]
    compared = table(["Method", *_SCORES], rows, chosen=str(content.facts["method"]))
    return (
        "<section><h2>Methods compared</h2><p>On the pair itself, one resolution level down, where the HSI is the "
        f"truth.</p>{compared}</section>"
    )


def _found(content: Content) -> Iterable[tuple[str, str]]:
    facts, link, unit = content.facts, content.link, _unit(content)
    dx, dy = facts["shift"]
    r, psf = link.scene.grid.ratio, link.psf
    yield "Shift corrected", f"x {dx:+.4g}, y {dy:+.4g} {unit}".strip() if dx or dy else "none"
    yield "PSF width (FWHM)", f"{psf.fwhm / r:.3f} HSI pixels = {psf.fwhm:.2f} MSI pixels"
    yield "PSF centre", f"{psf.dx:+.2f}, {psf.dy:+.2f} MSI pixels right of and below the HSI pixel's"
    if "msi_explains" in facts:
        yield "MSI explains", f"{100 * facts['msi_explains']:.1f} % of the HSI's leading components"
    nested = link.scene.grid.nested
    yield "HSI pixels", "nest in the MSI's, read as they are" if nested else "warped onto the MSI's grid"
    yield "Mean angle", f"{content.consistency.angle:.3f}° between degraded result and HSI"
    yield (
        "Over the noise",
        f"difference from the HSI is {content.consistency.over_noise:.2f} of its noise; a truth leaves about 0.9",
    )


def _times(content: Content) -> Iterable[tuple[str, str]]:
    facts = content.facts
    for name, words in (("fit_seconds", "Time to fit"), ("fuse_seconds", "Time to fuse")):
        if name in facts:
            yield words, f"{facts[name]:.1f} s"
    fused = content.link.fused
    seconds = facts.get("fuse_seconds")
    if seconds:
        yield "Speed", f"{fused.height * fused.width / 1e6 / seconds:.3g} million pixels per second"
    for name, value in (facts.get("backend_seconds_per_tile") or {}).items():
        yield str(name), f"{value} s per tile" if isinstance(value, (int, float)) else str(value)


def _made(content: Content) -> Iterable[tuple[str, str]]:
    facts = content.facts
    model = facts.get("model") or {}
    for name, value in (
        ("Software", facts.get("software")),
        ("Method", f"{facts['method']} ({facts.get('method_reason', '')})"),
        ("Model", _words(model) if model else None),
        ("Backend", facts.get("backend")),
        ("Tile, super-tile", f"{facts.get('tile')}, {facts.get('supertile')} pixels"),
        ("Halo", f"{facts.get('halo')} HSI pixels"),
        ("Libraries", _words(facts.get("versions") or {})),
    ):
        if value:
            yield name, str(value)


def _settings(content: Content) -> Iterable[tuple[str, str]]:
    for name, value in (content.facts.get("options") or {}).items():
        yield name.replace("_", " "), _words(value)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_words(v)}" for k, v in value.items())
    if value is None or isinstance(value, bool):
        return {None: "default", True: "yes", False: "no"}[value]
    return ", ".join(map(_words, value)) if isinstance(value, (list, tuple)) else str(value)


def _footer(content: Content) -> str:
    lattice = content.data["lattice"]
    step = round(content.link.fused.height / max(1, len(lattice["rows"])))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    kept = "every pixel" if step == 1 else f"one pixel in {step} × {step}"
    return (
        f"{content.facts.get('software', 'csakd_geo')} · page made {now} · spectra of {kept} are in this page"
    )
