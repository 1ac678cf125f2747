"""The plugin ``rio csakd``: the same commands, options and errors as ``csakd-geo``, under rasterio's ``rio``."""

from __future__ import annotations

import click

from csakd_geo.cli import LazyGroup, main

__all__ = ["csakd"]


@click.pass_context
def _enter(ctx: click.Context) -> None:
    """Take over what ``rio`` was told, such as its AWS profile, then set up as ``csakd-geo`` does."""
    env = (ctx.obj or {}).get("env")
    if env is not None:
        ctx.with_resource(env)
    ctx.invoke(main)


csakd = LazyGroup(
    name="csakd",
    callback=_enter,
    params=list(main.params),
    help=main.help,
    context_settings=dict(main.context_settings),
)
