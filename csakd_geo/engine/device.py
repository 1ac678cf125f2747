"""The device that networks run on."""

from __future__ import annotations

from csakd_geo.errors import OutputError


def pick_device(name: str) -> str:
    """``auto`` becomes ``cuda`` where torch sees a GPU, else ``cpu``.

    Raises
    ------
    OutputError
        If a GPU is asked for that is not there.
    """
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    index = int(name.partition(":")[2] or 0)
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise OutputError(f"Device '{name}' was asked for but torch sees no such GPU; use --device cpu.")
    return name
