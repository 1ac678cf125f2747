"""The configuration of a training run: what it means, and the sentence and line where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from csakd_geo.errors import InputError
from csakd_geo.train.config import Schedule, TrainConfig, read_train_config

GOOD = """\
name: tiny
output: runs/tiny
data:
  train: [archive/*.tif]
  validation:
    - held/v.tif
  ratios: [3, 4]
student:
  features: 8
  growth: 4
  depths: [0, 1, 1, 1]
losses:
  feature: 0
steps: 10
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_paths_are_those_of_the_file(tmp_path: Path) -> None:
    config = read_train_config(write(tmp_path, GOOD))
    assert config.output == tmp_path / "runs/tiny"
    assert config.data.train == (str(tmp_path / "archive/*.tif"),)
    assert config.data.validation == (str(tmp_path / "held/v.tif"),)
    assert config.student.depths == (0, 1, 1, 1)
    assert config.losses.weights().feature == 0
    assert config.losses.weights().response == 0.1
    assert config.augment.variation(config.data).ratios == (3, 4)
    assert config.augment.variation(config.data).random_share == 0


def test_the_command_line_goes_first(tmp_path: Path) -> None:
    config = read_train_config(write(tmp_path, GOOD), {"steps": 3, "seed": 5, "output": str(tmp_path / "x")})
    assert (config.steps, config.seed, config.output) == (3, 5, tmp_path / "x")


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("steps: 10", "stepz: 10", 14, "there is no option 'stepz'; known here: accelerator"),
        ("  features: 8", "  feature: 8", 9, "no option 'student.feature'; known here: attention"),
        (
            "  growth: 4",
            "  growth: four",
            10,
            "'student.growth': input should be a valid integer.*found 'four'",
        ),
        ("  ratios: [3, 4]", "  ratios: [3, 11]", 7, "'data.ratios.1'.*less than or equal to 10, found 11"),
        ("    - held/v.tif", "    - off", 6, "found False .put quotes around it"),
        ("  validation:\n    - held/v.tif\n", "", 3, "there is no validation data"),
        ("name: tiny\n", "", None, "'name' is missing"),
        ("  feature: 0", "  feature: -1", 13, "greater than or equal to 0, found -1"),
        ("steps: 10", "steps: 10\nteacher: {frozen: true}", 15, "frozen teacher has to be trained already"),
        ("steps: 10", "steps: 10\ncrop: 40", None, "a window of 128 MSI pixels holds no crop of 40"),
        (
            "  ratios: [3, 4]",
            "  sensors: [rgb, landsat8]\nform: bands",
            None,
            "a model of bands sees one set of MSI bands",
        ),
        ("  ratios: [3, 4]", "  sensors: [sentinel3]", 3, "no sensor 'sentinel3'; choose of ali"),
        ("student:\n", "student:\n  variant: pupil\n", 8, "no variant 'pupil'; choose of teacher"),
    ],
)
def test_mistakes_are_told_with_their_line(
    tmp_path: Path, old: str, new: str, line: int | None, words: str
) -> None:
    assert old in GOOD
    with pytest.raises(InputError, match=words) as error:
        read_train_config(write(tmp_path, GOOD.replace(old, new)))
    assert ("line" in str(error.value).split(":")[0]) is (line is not None)
    if line is not None:
        assert str(error.value).startswith(f"In 'run.yaml', line {line}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "words"), [("a: [", "no valid YAML at line"), ("- a", "must be a mapping")])
def test_what_is_no_configuration_is_told(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_train_config(write(tmp_path, text))
    with pytest.raises(InputError, match="cannot be read"):
        read_train_config(tmp_path / "none.yaml")


def test_schedules_by_hand() -> None:
    cosine, step, constant = Schedule(), Schedule(kind="step", every=100), Schedule(kind="constant")
    assert [cosine(k, 100) for k in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert [step(k, 1000) for k in (0, 99, 100, 250)] == pytest.approx([1, 1, 0.9, 0.81])
    assert constant(77, 100) == 1


def test_defaults_are_a_small_residual_student_with_its_teacher() -> None:
    config = TrainConfig.model_validate(
        {"name": "a", "output": "b", "data": {"train": ["c"], "validation": ["d"]}}
    )
    student = config.student.network(bands=10, msi_bands=10, residual=config.base is not None)
    assert student.student
    assert student.residual
    assert student.attention == "cross"
    assert config.teacher is not None
    assert config.teacher.features > config.student.features
