"""Options of ``csakd-geo fuse`` and ``align`` that the dialogs offer; one that is left empty is not passed."""

from __future__ import annotations

from typing import Any, NamedTuple

#: What a kind of option is called here: choice, integer, number, text, file, switch.
CHOICE, INTEGER, NUMBER, TEXT, FILE, SWITCH = "choice", "integer", "number", "text", "file", "switch"


class Option(NamedTuple):
    """One option; RATIO is ``--ratio``, and so on. `off` is a choice that says so and is not passed."""

    name: str
    label: str
    kind: str
    choices: tuple[str, ...] = ()
    minimum: float = 0
    advanced: bool = True
    off: str = ""

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.lower().replace("_", "-")

    def arguments(self, value: Any) -> list[str]:
        """What goes on the command line for a value; nothing for none."""
        if self.kind == SWITCH:
            return [self.flag] if value else []
        return [] if value in (None, "", self.off) else [f"{self.flag}={value}"]


_RATIO = Option("RATIO", "Ratio of HSI pixel to MSI pixel (by default from the files)", INTEGER, minimum=1)
_WAVELENGTHS = Option("WAVELENGTHS", "Wavelengths of the HSI's bands (CSV or ENVI header)", FILE)
_SHIFT = Option("SHIFT", "Shift: auto, none, or DX,DY added to the HSI in units of the MSI's CRS", TEXT)
#: Of ``csakd-geo align``.
ALIGN = (
    Option("WARP", "Resample onto cells of whole MSI pixels, in the MSI's CRS", SWITCH, advanced=False),
    _SHIFT,
    _RATIO,
    _WAVELENGTHS,
)
#: Of ``csakd-geo fuse``.
FUSE = (
    _RATIO,
    Option("BANDS", "HSI bands to write, such as 1-50,450-680nm", TEXT),
    _WAVELENGTHS,
    _SHIFT,
    Option("DTYPE", "Stored type (int16 by default)", CHOICE, ("int16", "float32")),
    Option("ADAPT_MINUTES", "Minutes of training on the pair; 0 never trains", NUMBER),
    Option(
        "UNCERTAINTY",
        "Uncertainty: standard deviations of all bands, or compact (one band, from which they follow)",
        CHOICE,
        ("none", "bands", "compact"),
        off="none",
    ),
    Option("QUALITY", "Quality: flags of masked, filled, clipped, extrapolated and changed pixels", SWITCH),
    Option("DEVICE", "Device: auto, cpu, cuda or cuda:N", TEXT),
    Option("TILE", "Tile, in MSI pixels computed at once", INTEGER, minimum=1),
    Option("SUPERTILE", "Super-tile, in MSI pixels stored at once", INTEGER, minimum=1),
    Option("HALO", "Halo, in HSI pixels of context, or auto to measure it", TEXT),
    Option("BLEND", "How tiles meet (crop by default)", CHOICE, ("crop", "linear", "hann")),
    Option("STATISTICS", "Attention and scaling from (scene by default)", CHOICE, ("scene", "tile")),
    Option("UNREADABLE", "Where an input cannot be read (fail by default)", CHOICE, ("fail", "nodata")),
    Option("SEED", "Seed of everything random", INTEGER),
    Option("WORKERS", "Worker processes", INTEGER, minimum=1),
    Option("CONFIG", "Configuration with the same options (YAML)", FILE),
    Option("RESUME", "Resume: go on with a run of the same settings that was stopped", SWITCH),
)
