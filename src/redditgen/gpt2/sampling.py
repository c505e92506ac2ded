"""Sampling with CTranslate2, from a model directory's own weights.

Prompts run in fixed blocks, as many side by side as there are cores; each block has a generator and a seed of its own.
So the same seed and block size give the same texts, and a block can be made again without those before it.
"""

import logging
import os
import random
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Any

from redditgen.gpt2.ctranslate2_model import FLOAT32, INT8, built
from redditgen.gpt2.device import free_of_machine, trim_heap
from redditgen.gpt2.examples import longest_prompt, prompt_ids
from redditgen.gpt2.mark import COMPACT
from redditgen.gpt2.rundir import ModelDir
from redditgen.gpt2.weights import Hparams
from redditgen.markup import END

AUTO = "auto"

_ROWS_MAX, _ROWS_MIN = 128, 16  # of a block: more are no faster, and few are slow
_CACHE = 2**30  # bytes that the keys and values of a block may take
_SEEDING = Lock()  # CTranslate2 has one seed for the whole process

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to draw tokens: `top_k` 0 and `top_p` 0 switch those off; `temperature` 0 takes the best one always."""

    temperature: float
    top_k: int
    top_p: float
    length: int
    """The most tokens written behind a prompt."""
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class Block:
    """Prompts that are continued together; what becomes of them depends on nothing else."""

    places: list[int]
    """Where they stand among all prompts."""
    prompts: list[str]
    seed: int


class Sampler:
    """Continues prompts with a run's newest weights, kept in `precision`."""

    def __init__(self, model: ModelDir, precision: str = FLOAT32) -> None:
        self._hparams = model.hparams()
        self._tokenizer = model.tokenizer()
        self._tokens = self._tokenizer.tokens()
        self._record_tokens = model.mark().record_tokens
        self._folder = built(model, precision)
        _log.debug("%s: as %s for CTranslate2 in %s", model.path, precision, self._folder)

    def blocks(self, prompts: Sequence[str], size: int, how: Sampling, seed: int) -> Generator[str]:
        """The texts of any number of prompts, in order; blocks that have not begun when it is closed never do."""
        blocks = self.cut(prompts, size, seed)

        def texts(block: Block) -> list[str]:
            return list(self.continued(block.prompts, how, block.seed))

        at_once = self._at_once(size, how)
        _log.debug("CTranslate2 writes %d blocks of %d, %d side by side", len(blocks), size, at_once)
        pool = ThreadPoolExecutor(at_once)
        try:
            yield from in_order(blocks, pool.map(texts, blocks))
        finally:
            pool.shutdown(cancel_futures=True)
            trim_heap()

    def _at_once(self, size: int, how: Sampling) -> int:
        """How many blocks are made side by side: one a core, if the memory has room for them."""
        each = (self._folder / "model.bin").stat().st_size + _cache(self._hparams, size, how.length)
        return max(1, min(os.cpu_count() or 1, free_of_machine() // each))

    def cut(self, prompts: Sequence[str], size: int, seed: int) -> list[Block]:
        """Blocks of at most `size` prompts of like length, in the order in which `in_order` needs them.

        Rows of one length begin to write at once, where a shorter one would wait until the longest has been read.
        """
        lengths = list(map(len, prompt_ids(list(prompts), self._tokenizer, self._record_tokens)))
        order = iter(sorted(range(len(prompts)), key=lengths.__getitem__))
        numbered = enumerate(list(islice(order, rows)) for rows in _sizes(len(prompts), size))
        blocks = [Block(rows, [prompts[row] for row in rows], block_seed(seed, number)) for number, rows in numbered]
        return sorted(blocks, key=lambda block: min(block.places))

    def continued(self, prompts: Sequence[str], how: Sampling, seed: int) -> Iterator[str]:
        """One block: the text of each prompt with what the model writes behind it, up to and with the end token.

        Prompts are starts of records. A text that reaches `how.length` tokens has no end token. Raises UsageError for
        a prompt that leaves no room in the context.
        """
        ids = prompt_ids(list(prompts), self._tokenizer, self._record_tokens)
        room = self._hparams.n_ctx - longest_prompt(ids, prompts, self._hparams.n_ctx)
        results = self._generator(seed).generate_batch(
            [[self._tokens[i] for i in row] for row in ids],
            max_length=min(how.length, room),
            include_prompt_in_result=False,
            return_end_token=True,
            **self._stopping(len(ids)),
            **_options(how, len(self._tokens)),
        )
        for prompt, result in zip(prompts, results, strict=True):
            yield prompt + self._text(result.sequences_ids[0])

    def _generator(self, seed: int) -> Any:
        """CTranslate2's Generator, with a thread of its own, which reads the seed when it draws first.

        Cores write more with a block each than with a share of each product of matrices.
        """
        import ctranslate2

        generator = ctranslate2.Generator(str(self._folder), inter_threads=1, intra_threads=1)
        with _SEEDING:
            ctranslate2.set_random_seed(seed)
            generator.generate_batch([[END]], max_length=1, sampling_topk=2)
        return generator

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


def _sizes(rows: int, size: int) -> list[int]:
    """Of the blocks that some rows are cut into: about equal, and as many as keep four cores busy, if not too small."""
    least = -(-rows // size)
    blocks = max(least, min(-(-least // 4) * 4, rows // _ROWS_MIN))
    return [(rows + block) // blocks for block in range(blocks)]


def in_order(blocks: Sequence[Block], made: Iterable[Iterable[str]]) -> Iterator[str]:
    """The texts of blocks that were cut, in the order of the prompts, each as soon as those before it are there."""
    texts: dict[int, str] = {}
    place = 0
    for block, of_block in zip(blocks, made, strict=True):
        texts |= zip(block.places, of_block, strict=True)
        while place in texts:
            yield texts.pop(place)
            place += 1


def block_size(asked: str, hparams: Hparams, length: int) -> int:
    """How many rows a block has: as many as are asked for, or by the model's size alone.

    It must not depend on the machine, since another size gives other texts.
    """
    if asked != AUTO:
        return int(asked)
    rows = _CACHE // _cache(hparams, 1, length)
    return min(_ROWS_MAX, 1 << max(rows, 1).bit_length() - 1)  # a power of two


def _cache(hparams: Hparams, rows: int, length: int) -> int:
    """The bytes of a block's keys and values, if it writes texts of full length behind prompts of a few tokens."""
    a_token = 2 * hparams.n_layer * hparams.n_embd * 4  # of its key and value in every layer
    return rows * a_token * min(length, hparams.n_ctx)


def precision(asked: str) -> str:
    """What the weights are kept in: int8 is about twice as fast on a CPU, and costs mini 0.001 bits per character."""
    return INT8 if asked == AUTO else asked


def block_seed(seed: int, block: int) -> int:
    """A block's own seed, so that it does not depend on those before it."""
    return random.Random(f"{seed}:{block}").randrange(2**31)


def through_end(text: str) -> str:
    """The text up to and with its first end token, or all of it."""
    head, end, _ = text.partition(END)
    return head + end


def _options(how: Sampling, vocabulary: int) -> dict[str, Any]:
    penalty = {"repetition_penalty": how.repetition_penalty}
    if how.temperature == 0:
        return {**penalty, "sampling_topk": 1}
    return {
        **penalty,
        "sampling_temperature": how.temperature,
        "sampling_topk": how.top_k or vocabulary,
        "sampling_topp": how.top_p or 1.0,
    }
