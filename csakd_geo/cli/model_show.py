"""What the ``csakd-geo model`` commands share: sizes as options, the ratio of a card, models as rows, tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from csakd_geo.models import Model, ModelCard
    from csakd_geo.models.complexity import Complexity

_FUSERS = ("sum", "learned gates", "cross attention", "cross self-attention (CSA)", "gates from the streams")
#: Ratio for models that state none or a range that it lies in: the published one.
USUAL_RATIO = 4
_WIDE = 200  # columns where stdout is no terminal


def read_size(text: str) -> tuple[int, int]:
    """Rows and columns of an option such as 64x48."""
    found = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)", text.strip(), re.IGNORECASE)
    if found is None:
        raise click.BadParameter(f"'{text}' is no size; give rows and columns, such as 64x48.")
    return int(found[1]), int(found[2])


def usual_ratio(card: ModelCard) -> int:
    """Ratio at which a model is looked at unless one is given."""
    if isinstance(card.ratio, int):
        return card.ratio
    if card.ratio is None:
        return USUAL_RATIO
    least, most = card.ratio
    return min(max(USUAL_RATIO, least), most)


def spell_ratio(card: ModelCard) -> str:
    """A card's ratio in words."""
    if card.ratio is None:
        return "not stated"
    return str(card.ratio) if isinstance(card.ratio, int) else f"{card.ratio[0]} to {card.ratio[1]}"


def spell_range(centres: Sequence[float] | None) -> str:
    """First and last wavelength."""
    return "not stated" if centres is None else f"{min(centres):.0f} to {max(centres):.0f} nm"


def attention_of(card: ModelCard) -> str:
    """Attention mode; ``none`` where the fuser has no attention."""
    return card.attention if card.network.fuser in (2, 3) else "none"


def model_facts(card: ModelCard, path: Path, *, where: str) -> dict[str, Any]:
    """One model of a list, ready for JSON."""
    return {
        "name": card.name,
        "version": card.version,
        "form": card.form,
        "ratio": card.ratio,
        "hsi_bands": card.hsi_bands,
        "bands": card.network.bands,
        "msi_bands": card.network.msi_bands,
        "hsi_range": _ends(card.hsi_wavelengths),
        "msi_range": _ends(card.msi_wavelengths),
        "base": card.base,
        "attention": attention_of(card),
        "where": where,
        "path": str(path),
    }


def list_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One line of a list, from `model_facts`."""
    if "note" in row:
        return row["name"], "", row["note"], "", "", "", "", "", "", row["where"]
    subspace = row["form"] == "subspace"
    ratio = row["ratio"]
    hsi = "any" if row["hsi_bands"] is None else spell_range(row["hsi_range"])
    msi = "any" if subspace else spell_range(row["msi_range"])
    bands = f"{row['hsi_bands']} + {row['msi_bands']}"
    if subspace:
        of = "" if row["hsi_bands"] is None else f" of {row['hsi_bands']} bands"
        bands = f"{row['bands']} coefficients{of}"
    spelt = (
        "not stated"
        if ratio is None
        else str(ratio)
        if isinstance(ratio, int)
        else f"{ratio[0]} to {ratio[1]}"
    )
    return (
        row["name"],
        row["version"],
        row["form"],
        spelt,
        bands,
        hsi,
        msi,
        row["base"] or "none",
        row["attention"],
        row["where"],
    )


def card_rows(loaded: Model) -> Iterator[tuple[str, str]]:
    """Everything that a card says, for people."""
    card: ModelCard = loaded.card
    network = card.network
    role = "student" if network.student else "teacher"
    yield "File", str(loaded.path)
    yield "Network", f"{role}, {network.features} features, growth {network.growth}, groups {network.groups}"
    yield (
        "Depths",
        ", ".join(
            f"{n} {d}" for n, d in zip(("hmfeat", "mhfeat", "hfeat", "mfeat"), network.depths, strict=True)
        ),
    )
    yield "Fuser", f"{network.fuser}, {_FUSERS[network.fuser]}; attention {attention_of(card)}"
    if card.domain is not None:
        yield "Sees", f"{card.components} coefficients of the subspace of the scenes it was trained on"
        yield "HSI", f"{card.hsi_bands} bands, {spell_range(card.hsi_wavelengths)}"
        yield "MSI", "any"
    elif card.form == "subspace":
        yield "Sees", f"{card.components} coefficients of the pair's own HSI subspace: any bands"
    else:
        yield "HSI", f"{network.bands} bands, {spell_range(card.hsi_wavelengths)}"
        yield "MSI", f"{network.msi_bands} bands, {spell_range(card.msi_wavelengths)}"
    yield "Ratio", spell_ratio(card)
    yield "Units", card.units or "not stated"
    rule = card.normalisation
    if rule is None:
        yield "Normalisation", "not stated"
    elif rule.rule == "subspace-std":
        yield "Normalisation", "coefficients over their standard deviation"
    else:
        yield (
            "Normalisation",
            f"percentiles {rule.lower:g} and {rule.upper:g} to {rule.low:g} and {rule.high:g}",
        )
    yield "Base", card.base or "none"
    yield "Tile, halo", f"{card.tile or 'any'} MSI pixels, {card.halo} HSI pixels, as the card states them"
    for k, data in enumerate(card.training):
        parts = [data.name, data.source, data.terms]
        yield "" if k else "Trained on", "; ".join(part for part in parts if part)
    for k, (key, value) in enumerate([*card.scores.items()]):
        yield "" if k else "Scores", f"{key}: {value}"
    for k, (key, value) in enumerate([*card.provenance.items()]):
        yield "" if k else "Provenance", f"{key}: {value}"
    yield "Version", f"{card.version}, schema {card.schema_version}"
    yield "SHA-256", f"weights {card.sha256}"
    yield "", f"file {loaded.sha256}"


def cost_rows(
    cost: Complexity, size: tuple[int, int], ratio: int, reach: dict[str, int]
) -> Iterator[tuple[str, str]]:
    """Cost and reach at one size."""
    unused = cost.parameters - cost.used_parameters
    note = f", {cost.used_parameters:,} used" if unused else ""
    yield "Parameters", f"{cost.parameters:,}{note}"
    at = f"{size[0]} x {size[1]} HSI pixels, ratio {ratio}"
    yield "Cost", f"{cost.macs / 1e9:,.2f} GMAC for {at}"
    yield "Peak memory", f"{cost.peak_bytes / 2**20:,.1f} MiB for {at}, without weights"
    yield "Needs around", f"{reach['measured']} HSI pixels as measured, {reach['structural']} by its depth"


def stdout() -> Console:
    """The console for results."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def print_grid(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> None:
    """Print a table with a heading; columns numbered in `right` hold numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table, numbers = Table(box=box.SIMPLE), set(right)
    for k, head in enumerate(heads):
        table.add_column(head, justify="right" if k in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    stdout().print(table)


def print_facts(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title, style="bold"), title_justify="left", show_header=False, box=box.SIMPLE)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    stdout().print(table)


def _ends(centres: Sequence[float] | None) -> list[float] | None:
    return None if centres is None else [min(centres), max(centres)]
