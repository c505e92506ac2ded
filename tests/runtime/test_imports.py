import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redditgen.runtime.imports import import_blocked

NAME = "redditgen_test_heavy"


@pytest.fixture(autouse=True)
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that can be imported, with a module in it."""
    (tmp_path / NAME).mkdir()
    for file in ("__init__.py", "part.py"):
        (tmp_path / NAME / file).write_text("weight = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in (NAME, f"{NAME}.part"):
        monkeypatch.setitem(sys.modules, module, None)  # so that it is undone, whoever imports it
        monkeypatch.delitem(sys.modules, module)


def weight() -> int:
    found: int = importlib.import_module(NAME).weight
    return found


def test_a_module_can_not_be_imported_in_the_block_and_can_be_behind_it() -> None:
    finders = sys.meta_path
    with import_blocked(NAME):
        for module in (NAME, f"{NAME}.part"):
            with pytest.raises(ModuleNotFoundError, match=f"No module named '{NAME}'") as caught:
                importlib.import_module(module)
            assert caught.value.name == NAME
        assert NAME not in sys.modules
        assert importlib.import_module("json")
    assert weight() == 7
    assert sys.meta_path == finders


def test_a_block_that_fails_leaves_nothing_behind() -> None:
    with pytest.raises(ZeroDivisionError), import_blocked(NAME), import_blocked(NAME):
        raise ZeroDivisionError
    assert weight() == 7


def test_another_thread_imports_it_meanwhile() -> None:
    with ThreadPoolExecutor(1) as thread, import_blocked(NAME):
        with pytest.raises(ModuleNotFoundError):
            weight()
        assert thread.submit(weight).result() == 7


def test_what_is_loaded_stays() -> None:
    weight()
    with import_blocked(NAME):
        assert weight() == 7


@pytest.mark.slow
def test_spacy_and_ctranslate2_load_no_torch_which_can_be_imported_then() -> None:
    program = """
import sys
from redditgen.titles.spacy_keywords import word_form_finder
from redditgen.gpt2.formats.ctranslate2_model import model_specification
assert word_form_finder("en_core_web_sm")(["Cats sleep"])
assert not {"torch", "transformers"} & set(sys.modules)
import torch
assert torch.ones(2).sum() == 2
assert word_form_finder("en_core_web_sm")(["Cats sleep"])
"""
    subprocess.run([sys.executable, "-c", program], check=True)
