"""Devices, precision and processes of a training run, through Lightning Fabric."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from csakd_geo.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from csakd_geo.train.config import TrainConfig


def launch(config: TrainConfig) -> Fabric:
    """The run's processes, started.

    Raises
    ------
    InputError
        The package is missing, or the devices or the precision are not to be had here.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise InputError(
            "Training needs the package lightning-fabric; install it with pip install 'csakd-geo[train]'."
        ) from error
    # "released" attention and an official student own weights that get no gradient
    strategy = "auto" if config.devices == 1 else "ddp"
    networks = [n for n in (config.student, config.teacher) if n is not None]
    if config.devices > 1 and any(n.attention == "released" or n.start is not None for n in networks):
        strategy = "ddp_find_unused_parameters_true"
    try:
        fabric = Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            precision=config.precision,
            strategy=strategy,
        )
        fabric.launch()
    except Exception as error:  # each backend has its own ways to say that a device is not there
        text = str(error).strip().rstrip(".").splitlines()[0]
        raise InputError(
            f"{config.devices} device(s) of kind '{config.accelerator}' at precision '{config.precision}' cannot "
            f"be used here ({text}); change accelerator, devices or precision."
        ) from error
    return fabric


def first_process() -> bool:
    """Whether this is the only process of a run, or the first of several on its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
