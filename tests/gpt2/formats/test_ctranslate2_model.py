import os
from collections.abc import Callable
from pathlib import Path

import ctranslate2
import numpy as np
import pytest

from redditgen.engines.ctranslate2.sampler import choose_precision
from redditgen.gpt2.formats.ctranslate2_model import FLOAT32, INT8, find_or_build_model
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import RunInfo
from tests.support.tiny_model import random_tensors

Saved = Callable[..., ModelDir]


@pytest.fixture
def saved(tiny: ModelDir, hyperparameters: Hyperparameters, tmp_path: Path) -> Saved:
    """Saves a step of a run, of weights times a factor."""
    run = ModelDir(tmp_path / "run")
    run.start_run(tiny, RunInfo(record_tokens="compact"))

    def save(step: int, factor: float = 1.0) -> ModelDir:
        tensors = {name: tensor * np.float32(factor) for name, tensor in random_tensors(hyperparameters).items()}
        run.save_checkpoint(step, tensors, {}, keep=0)
        return ModelDir(run.path, step)

    return save


def names(run: ModelDir) -> list[str]:
    return sorted(path.name for path in run.path.glob("ctranslate2-*"))


def logits(folder: Path, run: ModelDir) -> np.ndarray:
    tokens = run.tokenizer().tokens()
    generator = ctranslate2.Generator(str(folder))
    return np.array(generator.forward_batch([[tokens[number] for number in (5, 70, 100, 30)]]))


def test_a_model_is_built_once_for_each_step_and_precision(saved: Saved) -> None:
    run = saved(3)
    folder = find_or_build_model(run, FLOAT32)
    at = (folder / "model.bin").stat().st_mtime_ns
    Path(f"{run.checkpoint_prefix()}.data-00000-of-00001").unlink()  # nothing could be built any more
    assert find_or_build_model(run, FLOAT32) == folder
    assert (folder / "model.bin").stat().st_mtime_ns == at
    find_or_build_model(saved(4), INT8)
    assert names(run) == ["ctranslate2-3-float32", "ctranslate2-4-int8"]


def test_the_three_that_were_used_last_are_kept(saved: Saved) -> None:
    runs = [saved(step) for step in (1, 2, 3, 4)]
    for number, run in enumerate((*runs[:3], runs[0], runs[3])):
        os.utime(find_or_build_model(run, FLOAT32), (number, number))
    assert names(runs[0]) == ["ctranslate2-1-float32", "ctranslate2-3-float32", "ctranslate2-4-float32"]


def test_a_step_that_was_trained_anew_is_built_anew(saved: Saved) -> None:
    before = logits(find_or_build_model(saved(3), FLOAT32), saved(3))
    other = saved(3, 1.5)
    assert not np.allclose(logits(find_or_build_model(other, FLOAT32), other), before, atol=0.1)


def test_int8_is_a_fourth_of_the_size_and_predicts_nearly_the_same(saved: Saved) -> None:
    run = saved(3)
    folders = [find_or_build_model(run, kept_in) for kept_in in (FLOAT32, INT8)]
    large, small = ((folder / "model.bin").stat().st_size for folder in folders)
    assert small < 0.4 * large
    exact, near = (logits(folder, run) for folder in folders)
    assert 0 < np.abs(exact - near).max() < 0.1 * np.abs(exact).max()


def test_int8_is_what_auto_means() -> None:
    assert [choose_precision(asked) for asked in ("auto", "float32", "int8")] == [INT8, FLOAT32, INT8]
