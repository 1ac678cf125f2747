"""``python -m csakd_geo.cli`` is ``csakd-geo``."""

from csakd_geo.cli import main

main(prog_name="csakd-geo")
