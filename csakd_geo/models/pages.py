"""Memory pages of torch's arrays."""

from __future__ import annotations

import os


def prefer_huge_pages() -> None:
    """Let torch take huge pages where the system grants them on request (Linux); call before its first array.

    A network's arrays are tens of megabytes, new for each tile; with pages of 4 kB a tenth of a tile's
    time went into making pages. Whoever has set ``THP_MEM_ALLOC_ENABLE`` keeps what they set.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
