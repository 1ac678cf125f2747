"""What several test modules share: the data folder beside the checkout, and how Hypothesis runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from csakd_geo.simulate import SimulatedPaths

ROOT = Path(__file__).resolve().parents[1]

# One slow example on a busy machine is no failure; on CI a run must also be the same run every time.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def _folder(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(f"{path.name} folder not found at {path}; set CSAKD_GEO_SHARED to the shared folder")
    return path


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is neither read nor written, here and in the commands that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of data and golden vectors outside the checkout; the test is skipped where it is missing."""
    return _folder(Path(os.environ.get("CSAKD_GEO_SHARED") or ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """Real images, one folder per data set; a test that needs one that is missing skips itself."""
    return _folder(shared / "data")


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Expected outputs of the published networks and metrics."""
    return _folder(shared / "golden")


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SimulatedPaths:
    """The embedded sample: ``hsi``, ``msi`` and ``truth``; read it, never write into it."""
    from csakd_geo.sample import write_sample

    return write_sample(tmp_path_factory.mktemp("sample"))
