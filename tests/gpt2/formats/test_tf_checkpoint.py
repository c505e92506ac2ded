from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from redditgen.errors import InputError, MissingError
from redditgen.gpt2.formats import sstable, tf_checkpoint
from redditgen.gpt2.hyperparameters import Hyperparameters
from tests.support.paths import OPENAI

Tensors = dict[str, np.ndarray]

SMALL: Tensors = {
    "model/wte": np.arange(6, dtype=np.float32).reshape(3, 2),
    "model/ln_f/g": np.array([1.5], dtype=np.float32),
}

names = st.text(st.characters(codec="utf8"), min_size=1, max_size=8)
arrays = st_numpy.arrays(np.float32, st_numpy.array_shapes(min_dims=0, max_dims=3, max_side=3))


def shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def same(left: Tensors, right: Tensors) -> bool:
    """Bit for bit, not-a-numbers included."""
    return shapes(left) == shapes(right) and all(left[name].tobytes() == right[name].tobytes() for name in left)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    prefix = tmp_path / "model-7"
    tf_checkpoint.write_checkpoint(prefix, SMALL)
    return prefix


def index_of(prefix: Path) -> Path:
    return Path(f"{prefix}.index")


def data_of(prefix: Path) -> Path:
    return Path(f"{prefix}.data-00000-of-00001")


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, arrays, min_size=1, max_size=20))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, tensors: Tensors) -> None:
    prefix = tmp_path_factory.mktemp("bundle") / "model.ckpt"
    tf_checkpoint.write_checkpoint(prefix, tensors)
    assert same(tf_checkpoint.read_tensors(prefix, shapes(tensors)), tensors)
    assert set(tf_checkpoint.read_index(prefix)[0]) == set(tensors)
    assert sorted(prefix.parent.iterdir()) == [data_of(prefix), index_of(prefix)]


def test_more_tensors_than_stand_between_two_restarts(tmp_path: Path) -> None:
    tensors = {f"model/h{number}/ln_1/g": np.full(2, number, dtype=np.float32) for number in range(100)}
    tf_checkpoint.write_checkpoint(tmp_path / "many", tensors)
    assert same(tf_checkpoint.read_tensors(tmp_path / "many", shapes(tensors)), tensors)


def test_a_tensor_is_written_as_float32_in_row_order_whatever_its_memory_is_like(tmp_path: Path) -> None:
    columns_first = np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3))
    tf_checkpoint.write_checkpoint(tmp_path / "odd", {"w": columns_first})
    assert data_of(tmp_path / "odd").read_bytes() == np.arange(6, dtype="<f4").tobytes()


def test_a_second_checkpoint_takes_the_place_of_the_first(small: Path) -> None:
    other = {name: tensor + 1 for name, tensor in SMALL.items()}
    tf_checkpoint.write_checkpoint(small, other)
    assert same(tf_checkpoint.read_tensors(small, shapes(SMALL)), other)


def damaged(path: Path, change: Callable[[bytearray, int], None]) -> list[int]:
    """Change every byte of a file in turn; gives the places where the tensors were read as if nothing had happened."""
    whole, prefix, unnoticed = path.read_bytes(), path.with_name("model-7"), []
    for at in range(len(whole)):
        content = bytearray(whole)
        change(content, at)
        path.write_bytes(content)
        try:
            tensors = tf_checkpoint.read_tensors(prefix, shapes(SMALL))
        except InputError as error:
            assert str(error).startswith(str(prefix)), at
        else:
            assert same(tensors, SMALL), at
            unnoticed.append(at)
    return unnoticed


def flip_all(content: bytearray, at: int) -> None:
    content[at] ^= 0xFF


def flip_lowest(content: bytearray, at: int) -> None:
    content[at] ^= 1


def cut(content: bytearray, at: int) -> None:
    del content[at:]


@pytest.mark.parametrize("change", [flip_all, flip_lowest])
def test_no_damage_to_the_index_gets_through(small: Path, change: Callable[[bytearray, int], None]) -> None:
    content = index_of(small).read_bytes()
    footer = len(content) - 48
    metaindex = content[footer]  # its offset, in one byte
    # Never read: the empty metaindex block of 8 bytes with its trailer, and in the footer its handle and the padding.
    unread = {*range(metaindex, metaindex + 8 + 5), *range(footer, len(content) - 8)}
    assert set(damaged(index_of(small), change)) < unread


@pytest.mark.parametrize("change", [flip_all, flip_lowest])
def test_each_damaged_byte_of_the_data_is_noticed(small: Path, change: Callable[[bytearray, int], None]) -> None:
    assert damaged(data_of(small), change) == []


def test_the_damaged_tensor_is_named(small: Path) -> None:
    content = bytearray(data_of(small).read_bytes())
    content[-1] ^= 1  # model/wte, the last by name
    data_of(small).write_bytes(content)
    with pytest.raises(InputError, match=r"model-7\.data-00000-of-00001: model/wte fails its crc32c check"):
        tf_checkpoint.read_tensors(small, shapes(SMALL))
    assert tf_checkpoint.read_tensors(small, {"model/ln_f/g": (1,)})["model/ln_f/g"] == 1.5


def test_truncated_files_are_refused(small: Path) -> None:
    index = index_of(small).read_bytes()
    assert damaged(index_of(small), cut) == []
    index_of(small).write_bytes(index)
    assert damaged(data_of(small), cut) == []
    data_of(small).write_bytes(b"1234")
    with pytest.raises(InputError, match=r"ends before model/wte does \(4 bytes\)"):
        tf_checkpoint.read_tensors(small, shapes(SMALL))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_an_index_of_nonsense_with_right_checksums_is_refused(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, entry: bytes
) -> None:
    prefix = tmp_path_factory.getbasetemp() / "nonsense"
    index_of(prefix).write_bytes(sstable.build_table([(b"", header), (b"model/wte", entry)]))
    with pytest.raises((InputError, MissingError)):
        tf_checkpoint.read_tensors(prefix, {"model/wte": (3, 2)})


def test_missing_files_are_named(small: Path) -> None:
    data_of(small).unlink()
    with pytest.raises(MissingError, match=r"model-7\.data-00000-of-00001: not there"):
        tf_checkpoint.read_tensors(small, shapes(SMALL))
    index_of(small).unlink()
    with pytest.raises(MissingError, match=r"model-7\.index: not there"):
        tf_checkpoint.read_tensors(small, shapes(SMALL))


def test_another_models_shapes_are_refused(small: Path) -> None:
    with pytest.raises(InputError, match=r"model/wte is \[3, 2\] but hparams\.json asks for \[2, 3\]"):
        tf_checkpoint.read_tensors(small, {"model/wte": (2, 3)})
    with pytest.raises(InputError, match=r"holds no tensor model/wpe"):
        tf_checkpoint.read_tensors(small, {"model/wpe": (3, 2)})


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no/model: can't be written: No such file"):
        tf_checkpoint.write_checkpoint(tmp_path / "no/model", SMALL)


def test_a_text_file_is_no_index(small: Path) -> None:
    index_of(small).write_text("<html>404 Not Found</html>" * 10, encoding="utf8")
    with pytest.raises(InputError, match=r"is no whole TensorFlow checkpoint index"):
        tf_checkpoint.read_index(small)


def test_checksums_are_masked_as_tensorflow_masks_them() -> None:
    assert sstable.masked_crc(b"123456789") == 0xC78AB0E5  # of crc32c 0xE3069283, the check value of the catalogues
    assert sstable.masked_crc(b"") == 0xA282EAD8


@pytest.mark.skipif(not OPENAI.exists(), reason=f"no {OPENAI}")
def test_openais_own_index_is_read_and_written_byte_for_byte() -> None:
    entries, shards = tf_checkpoint.read_index(OPENAI / "model.ckpt")
    assert (len(entries), shards) == (148, 1)
    assert shapes_of(entries) == Hyperparameters.load(OPENAI / "hparams.json").tensor_shapes()
    pairs = [
        (b"", tf_checkpoint._header()),
        *((name.encode(), tf_checkpoint._encoded(entry)) for name, entry in entries.items()),
    ]
    assert sstable.build_table(pairs) == index_of(OPENAI / "model.ckpt").read_bytes()


def shapes_of(entries: dict[str, tf_checkpoint.TensorEntry]) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in entries.items()}
