"""``csakd-geo methods``: what can be run."""

from __future__ import annotations

import json

import click

from csakd_geo.cli import warn
from csakd_geo.errors import ModelError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def methods(as_json: bool) -> None:
    """List the fusion methods, and the models that are installed."""
    from csakd_geo.methods import method_table
    from csakd_geo.models import bundled_models, read_card, user_models

    rows, cards = method_table(), []
    for path in (*bundled_models(), *user_models()):
        if path.suffix != ".safetensors":
            continue
        try:
            cards.append((path, read_card(path)))
        except ModelError as error:
            warn(str(error))
    if as_json:
        listed = {
            "methods": [{"name": n, "title": t, "source": s} for n, t, s in rows],
            "models": [{"name": c.name, "version": c.version, "path": str(p)} for p, c in cards],
        }
        click.echo(json.dumps(listed, indent=1))
        return
    for name, title, source in rows:
        click.echo(f"{name:<13} {title}\n{'':<13} Source: {source}")
    for path, card in cards:
        ratio = "any ratio" if card.ratio is None else f"ratio {card.ratio}"
        click.echo(f"model {card.name} {card.version}: {card.form} form, {ratio} ({path.name})")
