"""What the ``csakd-geo model`` commands share: sizes as options, the ratio of a card, cards as rows, tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from csakd_geo.models import ModelCard

#: Ratio for models that state none or a range that it lies in: the published one.
USUAL_RATIO = 4
_WIDE = 160  # columns where stdout is no terminal


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
        "bands": card.network.bands,
        "msi_bands": card.network.msi_bands,
        "hsi_range": _ends(card.hsi_wavelengths),
        "msi_range": _ends(card.msi_wavelengths),
        "base": card.base,
        "attention": attention_of(card),
        "where": where,
        "path": str(path),
    }


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
