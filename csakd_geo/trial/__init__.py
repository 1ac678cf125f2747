"""Trials: a model against every method on scenes with known truth."""

from __future__ import annotations

from csakd_geo.trial.find import SNR_HSI, SNR_MSI, Form, Wanted, find_scenes
from csakd_geo.trial.plot import draw_sweep
from csakd_geo.trial.run import (
    Contender,
    Row,
    classical_contenders,
    model_contenders,
    run_trial,
    without_attention,
)
from csakd_geo.trial.scenes import Condition, Scene
from csakd_geo.trial.tables import as_csv, as_json, as_markdown, check_folder, mean_rows, put_files, table

__all__ = [
    "SNR_HSI",
    "SNR_MSI",
    "Condition",
    "Contender",
    "Form",
    "Row",
    "Scene",
    "Wanted",
    "as_csv",
    "as_json",
    "as_markdown",
    "check_folder",
    "classical_contenders",
    "draw_sweep",
    "find_scenes",
    "mean_rows",
    "model_contenders",
    "put_files",
    "run_trial",
    "table",
    "without_attention",
]
