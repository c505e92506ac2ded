"""Sampling with CTranslate2, from a model directory's own weights.

The CTranslate2 model is built once for each checkpoint and kept beside it (`ctranslate2-<step>/`). Prompts run in
fixed blocks; each block has a generator and a seed of its own, since CTranslate2 reads its seed only when a generator
is made. So the same seed and block size give the same texts, and a block can be made again without those before it.
"""

import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redditgen.errors import UsageError
from redditgen.gpt2.examples import prompt_ids
from redditgen.gpt2.rundir import COMPACT, ModelDir
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.gpt2.weights import Hparams
from redditgen.markup import END
from redditgen.output import whole_folder

if TYPE_CHECKING:
    from redditgen.gpt2.weights import Tensors


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw tokens: `top_k` 0 and `top_p` 0 switch those off; `temperature` 0 takes the best one always."""

    temperature: float
    top_k: int
    top_p: float
    length: int
    """The most tokens written behind a prompt."""


class Sampler:
    """Continues prompts with a run's newest weights."""

    def __init__(self, model: ModelDir) -> None:
        self._hparams = model.hparams()
        self._tokenizer = model.tokenizer()
        self._tokens = self._tokenizer.tokens()
        self._record_tokens = model.mark().record_tokens
        self._folder = built(model, self._hparams, self._tokenizer)

    def blocks(self, prompts: Sequence[str], size: int, how: Sampling, seed: int) -> Iterator[str]:
        """The texts of any number of prompts, `size` at a time."""
        for number, start in enumerate(range(0, len(prompts), size)):
            yield from self.continued(prompts[start : start + size], how, block_seed(seed, number))

    def continued(self, prompts: Sequence[str], how: Sampling, seed: int) -> Iterator[str]:
        """One block: the text of each prompt with what the model writes behind it, up to and with the end token.

        Prompts are starts of records. A text that reaches `how.length` tokens has no end token. Raises UsageError for
        a prompt that leaves no room in the context.
        """
        import ctranslate2

        ids = prompt_ids(list(prompts), self._tokenizer, self._record_tokens)
        longest = max(map(len, ids))
        room = self._hparams.n_ctx - longest
        if room < 1:
            raise UsageError(f"a prompt of {longest} tokens fills the model's context of {self._hparams.n_ctx}")
        ctranslate2.set_random_seed(seed)
        generator = ctranslate2.Generator(str(self._folder), inter_threads=1)
        results = generator.generate_batch(
            [[self._tokens[i] for i in row] for row in ids],
            max_length=min(how.length, room),
            include_prompt_in_result=False,
            return_end_token=True,
            **self._stopping(len(ids)),
            **_options(how, len(self._tokens)),
        )
        for prompt, result in zip(prompts, results, strict=True):
            yield prompt + self._text(result.sequences_ids[0])

    def _stopping(self, rows: int) -> dict[str, Any]:
        """How CTranslate2 knows an end: the one token, or, where the end token stands in pieces, their text."""
        end = {"end_token": END}
        if self._record_tokens == COMPACT:
            return end
        tails = [""] * rows

        def ended(step: Any) -> bool:
            tails[step.batch_id] = (tails[step.batch_id] + self._tokenizer.decode([step.token_id]))[-2 * len(END) :]
            return END in tails[step.batch_id]

        return {**end, "callback": ended}

    def _text(self, ids: list[int]) -> str:
        ended = bool(ids) and ids[-1] == self._tokenizer.end
        text = self._tokenizer.decode(ids[:-1] if ended else ids)
        return text + END if ended else through_end(text)


def block_seed(seed: int, block: int) -> int:
    """A block's own seed, so that it does not depend on those before it."""
    return random.Random(f"{seed}:{block}").randrange(2**31)


def through_end(text: str) -> str:
    """The text up to and with its first end token, or all of it."""
    head, end, _ = text.partition(END)
    return head + end


def _options(how: Sampling, vocabulary: int) -> dict[str, Any]:
    if how.temperature == 0:
        return {"sampling_topk": 1}
    return {
        "sampling_temperature": how.temperature,
        "sampling_topk": how.top_k or vocabulary,
        "sampling_topp": how.top_p or 1.0,
    }


def built(model: ModelDir, hparams: Hparams, tokenizer: Tokenizer) -> Path:
    """The folder of the CTranslate2 model of a directory's newest checkpoint, built if it is not there yet."""
    folder = model.path / f"ctranslate2-{model.step()}"
    if not folder.exists():
        for outdated in model.path.glob("ctranslate2-*"):
            shutil.rmtree(outdated, ignore_errors=True)
        spec = specification(hparams, tokenizer, model.tensors())
        with whole_folder(folder) as temporary:
            spec.save(str(temporary))
    return folder


def specification(hparams: Hparams, tokenizer: Tokenizer, tensors: "Tensors") -> Any:
    """A GPT-2 as CTranslate2's model specification, whose `save` writes a folder that its Generator reads."""
    specs = _specs()
    spec = specs.TransformerDecoderModelSpec.from_config(
        hparams.n_layer, hparams.n_head, pre_norm=True, activation=specs.Activation.GELUTanh
    )
    spec.register_vocabulary(tokenizer.tokens())
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = END
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = tensors["model/wte"]
    decoder.position_encodings.encodings = tensors["model/wpe"]
    _layer_norm(decoder.layer_norm, tensors, "model/ln_f")
    for number, layer in enumerate(decoder.layer):
        at = f"model/h{number}"
        _layer_norm(layer.self_attention.layer_norm, tensors, f"{at}/ln_1")
        _linear(layer.self_attention.linear[0], tensors, f"{at}/attn/c_attn")
        _linear(layer.self_attention.linear[1], tensors, f"{at}/attn/c_proj")
        _layer_norm(layer.ffn.layer_norm, tensors, f"{at}/ln_2")
        _linear(layer.ffn.linear_0, tensors, f"{at}/mlp/c_fc")
        _linear(layer.ffn.linear_1, tensors, f"{at}/mlp/c_proj")
    spec.validate()
    spec.optimize(quantization="float32")
    return spec


def _specs() -> Any:
    """ctranslate2.specs without torch, which it imports for 3 s where it can, and needs for bfloat16 alone."""
    modules: dict[str, Any] = sys.modules
    is_loaded = "torch" in modules
    if not is_loaded:
        modules["torch"] = None  # as if it were not installed
    try:
        from ctranslate2 import specs
    finally:
        if not is_loaded:
            del modules["torch"]
    return specs


def _layer_norm(spec: Any, tensors: "Tensors", name: str) -> None:
    spec.gamma, spec.beta = tensors[f"{name}/g"], tensors[f"{name}/b"]


def _linear(spec: Any, tensors: "Tensors", name: str) -> None:
    # [1, in, out] in the checkpoint, [out, in] in CTranslate2.
    spec.weight, spec.bias = tensors[f"{name}/w"][0].T.copy(), tensors[f"{name}/b"]
