"""CTranslate2's texts against PyTorch's, on the same weights."""

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest
import torch

from redditgen.engines.base import Sampling, block_size, cut_after_end_token
from redditgen.engines.ctranslate2.sampler import Sampler, block_seed
from redditgen.engines.data.examples import tokenize_prompts
from redditgen.errors import UsageError
from redditgen.finetune.command import finetune
from redditgen.gpt2.formats.ctranslate2_model import FLOAT32, find_or_build_model
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS, LITERAL_TOKENS, NO_RECORDS, RunInfo
from redditgen.gpt2.tensor_names import copy_to_network, new_network
from redditgen.settings import FinetuneSettings
from redditgen.titles.record import END_TOKEN, START_TOKEN
from tests.support.fixture_types import Settings
from tests.support.tiny_model import random_tensors

GREEDY = Sampling(temperature=0, top_k=0, top_p=0.0, length=60)
DRAWN = Sampling(temperature=1.0, top_k=0, top_p=0.0, length=40)
PROMPTS = [f"{START_TOKEN}~`cats~^~@", f"{START_TOKEN}~`dogs~^lazy dog~@My", f"{START_TOKEN}~`"]
TITLE = re.compile(r"<\|startoftext\|>~`(cats|dogs)~\^[a-z ]*~@My [a-z ,?]+<\|endoftext\|>")

Untrained = Callable[[str], ModelDir]


@pytest.fixture
def untrained(tiny: ModelDir, hyperparameters: Hyperparameters, tmp_path: Path) -> Untrained:
    """Makes a run of random weights."""

    def make(record_tokens: str) -> ModelDir:
        run = ModelDir(tmp_path / record_tokens)
        run.start_run(tiny, RunInfo(record_tokens=record_tokens))
        run.save_checkpoint(3, random_tensors(hyperparameters), {})
        return run

    return make


@pytest.fixture
def compact(checkpoint_dir: Path) -> ModelDir:
    return ModelDir(checkpoint_dir / "trained")


@pytest.fixture(scope="module")
def literal(checkpoint_dir: Path, dataset: Path, model_dir: Path) -> ModelDir:
    """A run of records whose tokens are spelled out, that has learned to spell them."""
    finetune(
        FinetuneSettings(
            dataset=dataset, model="tiny", run="literal", steps=90, learning_rate=0.02, sample_every=0,
            record_tokens="literal", precision="float32", model_dir=model_dir, checkpoint_dir=checkpoint_dir,
        )
    )  # fmt: skip
    return ModelDir(checkpoint_dir / "literal")


def by_torch(run: ModelDir, prompt: str, length: int) -> str:
    """The likeliest token again and again, with no cache and nothing batched."""
    model, tokenizer = new_network(run.hyperparameters()), run.tokenizer()
    copy_to_network(run.tensors(), model)
    [ids] = tokenize_prompts([prompt], tokenizer, run.run_info().record_tokens)
    begin = len(ids)
    while len(ids) < min(begin + length, run.hyperparameters().n_ctx):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.end:
            return prompt + tokenizer.decode(ids[begin:-1]) + END_TOKEN
        if END_TOKEN in (text := tokenizer.decode(ids[begin:])):
            return prompt + cut_after_end_token(text)
    return prompt + tokenizer.decode(ids[begin:])


def test_the_built_models_predictions_are_pytorchs(untrained: Untrained) -> None:
    run = untrained(COMPACT_TOKENS)
    tokenizer, model = run.tokenizer(), new_network(run.hyperparameters())
    copy_to_network(run.tensors(), model)
    [ids] = tokenize_prompts(
        [f"{START_TOKEN}~`cats~^lazy cat~@My lazy cat steals my dinner"], tokenizer, COMPACT_TOKENS
    )
    generator = ctranslate2.Generator(str(find_or_build_model(run, FLOAT32)))
    found = generator.forward_batch([[tokenizer.tokens()[token] for token in ids]])
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits
    torch.testing.assert_close(torch.from_numpy(np.array(found)), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("record_tokens", [COMPACT_TOKENS, LITERAL_TOKENS])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_an_untrained_models_likeliest_tokens_are_pytorchs(
    untrained: Untrained, record_tokens: str, prompt: str
) -> None:
    run, how = untrained(record_tokens), replace(GREEDY, length=15)
    assert list(Sampler(run).sample_block([prompt], how, seed=0)) == [by_torch(run, prompt, how.length)]


@pytest.mark.parametrize("kind", ["compact", "literal"])
def test_a_blocks_texts_are_pytorchs_and_stop_at_the_end_token(kind: str, request: pytest.FixtureRequest) -> None:
    run: ModelDir = request.getfixturevalue(kind)
    texts = list(Sampler(run).sample_block(PROMPTS, GREEDY, seed=0))
    assert texts == [by_torch(run, prompt, GREEDY.length) for prompt in PROMPTS]
    assert all(TITLE.fullmatch(text) for text in texts)


@pytest.mark.parametrize("kind", ["compact", "literal"])
def test_the_same_seed_gives_the_same_texts_and_another_one_others(kind: str, request: pytest.FixtureRequest) -> None:
    run: ModelDir = request.getfixturevalue(kind)
    prompts = [f"{START_TOKEN}~`"] * 8
    texts = list(Sampler(run).sample_block(prompts, DRAWN, seed=1))
    assert list(Sampler(run).sample_block(prompts, DRAWN, seed=1)) == texts
    sampler = Sampler(run)
    others = list(sampler.sample_block(prompts, DRAWN, seed=2))
    assert others != texts
    assert list(sampler.sample_block(prompts, DRAWN, seed=1)) == texts  # whatever was drawn before
    assert len(set(texts)) > 4


def test_prompts_of_like_length_are_sampled_together_in_blocks_with_seeds_of_their_own(compact: ModelDir) -> None:
    prompts = [f"{START_TOKEN}~`dogs~^ball~@", f"{START_TOKEN}~`", f"{START_TOKEN}~`cats~^~@"] * 3
    sampler = Sampler(compact)
    texts = list(sampler.sample(prompts, 4, DRAWN, seed=5))
    assert [text.startswith(prompt) for text, prompt in zip(texts, prompts, strict=True)] == [True] * 9
    tokens = [len(ids) for ids in tokenize_prompts(prompts[:3], compact.tokenizer(), COMPACT_TOKENS)]
    assert sorted(tokens) == [tokens[1], tokens[2], tokens[0]]
    by_length = [1, 4, 7, 2, 5, 8, 0, 3, 6]
    for block, start in enumerate((0, 3, 6)):
        rows = by_length[start : start + 3]
        wanted = list(sampler.sample_block([prompts[row] for row in rows], DRAWN, block_seed(5, block)))
        assert [texts[row] for row in rows] == wanted
    assert list(sampler.sample([], 4, DRAWN, seed=5)) == []


@pytest.mark.parametrize("cores", [1, 8])
def test_what_a_block_becomes_does_not_depend_on_those_beside_it(
    compact: ModelDir, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    sampler = Sampler(compact)
    texts = list(sampler.sample([f"{START_TOKEN}~`"] * 96, 3, DRAWN, seed=5))
    alone = [sampler.sample_block([f"{START_TOKEN}~`"] * 3, DRAWN, block_seed(5, number)) for number in range(32)]
    assert texts == [text for block in alone for text in block]


@pytest.mark.parametrize(("cores", "free", "at_once"), [(4, 2**40, 4), (4, 0, 1), (1, 2**40, 1)])
def test_blocks_are_made_side_by_side_as_cores_and_memory_allow(
    compact: ModelDir, monkeypatch: pytest.MonkeyPatch, cores: int, free: int, at_once: int
) -> None:
    """And none begins that nobody asks for any more."""
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("redditgen.engines.ctranslate2.sampler.available_memory", lambda: free)
    are_there, begun, running, most = threading.Barrier(at_once), list[int](), set[int](), 0

    def sample_block(self: Sampler, prompts: list[str], how: Sampling, seed: int) -> list[str]:
        nonlocal most
        begun.append(seed)
        running.add(seed)
        most = max(most, len(running))
        if len(begun) <= at_once:
            are_there.wait(timeout=60)  # until so many have begun
        else:
            time.sleep(0.05)
        running.remove(seed)
        return prompts

    monkeypatch.setattr(Sampler, "sample_block", sample_block)
    with closing(Sampler(compact).sample(["a"] * 100, 1, DRAWN, seed=5)) as texts:
        assert next(texts) == "a"
    assert most == at_once
    assert len(begun) < 100


def test_blocks_are_about_equal_and_no_core_waits_for_another_if_they_are_not_too_small(compact: ModelDir) -> None:
    sampler = Sampler(compact)
    numbers = (0, 1, 10, 50, 300, 513, 1000)
    sizes = {
        rows: [len(block.prompts) for block in sampler.split_into_blocks(["a"] * rows, 128, 1)] for rows in numbers
    }
    assert sizes == {
        0: [], 1: [1], 10: [10], 50: [16, 17, 17], 300: [75] * 4, 513: [64] * 7 + [65], 1000: [125] * 8,
    }  # fmt: skip
    assert [len(block.prompts) for block in sampler.split_into_blocks(["a"] * 5, 1, 1)] == [1] * 5


def test_a_block_is_as_large_as_a_models_cache_allows() -> None:
    sizes = {
        "mini": Hyperparameters(n_vocab=8192, n_ctx=1024, n_embd=256, n_head=8, n_layer=4),
        "124M": Hyperparameters(n_vocab=50257, n_ctx=1024, n_embd=768, n_head=12, n_layer=12),
        "1558M": Hyperparameters(n_vocab=50257, n_ctx=1024, n_embd=1600, n_head=25, n_layer=48),
    }
    assert {name: block_size("auto", hyperparameters, 100) for name, hyperparameters in sizes.items()} == {
        "mini": 128, "124M": 128, "1558M": 16,
    }  # fmt: skip
    assert block_size("auto", sizes["1558M"], 1024) == 1
    assert block_size("37", sizes["124M"], 100) == 37


def test_the_seed_of_a_block_is_its_own() -> None:
    assert len({block_seed(seed, block) for seed in range(-5, 5) for block in range(10)}) == 100
    assert block_seed(1, 0) == 1_802_886_551  # titles made by a seed can be made again by a later version
    assert all(0 <= block_seed(seed, 0) < 2**31 for seed in (-(2**70), -1, 0, 2**70))


def test_a_block_is_made_only_when_it_is_asked_for(compact: ModelDir) -> None:
    too_long = START_TOKEN + "~@" + "zq" * 200
    texts = Sampler(compact).sample([PROMPTS[0], too_long], 1, GREEDY, seed=0)
    assert next(texts).endswith(END_TOKEN)
    with pytest.raises(UsageError, match="fills the model's context"):
        next(texts)


@pytest.mark.parametrize("record_tokens", [COMPACT_TOKENS, LITERAL_TOKENS, NO_RECORDS])
@pytest.mark.parametrize("prompt", ["", "My cat", f"{END_TOKEN}{START_TOKEN}My", f"\n {START_TOKEN}"])
def test_any_text_may_be_gone_on_from(untrained: Untrained, record_tokens: str, prompt: str) -> None:
    run, how = untrained(record_tokens), replace(GREEDY, length=12)
    [text] = Sampler(run).sample_block([prompt], how, seed=0)
    assert text == by_torch(run, prompt, how.length)
    assert text.startswith(prompt)


def test_every_drawn_text_ends_at_its_first_end_token(literal: ModelDir, compact: ModelDir) -> None:
    for run in (literal, compact):
        texts = list(Sampler(run).sample_block([f"{START_TOKEN}~`"] * 32, replace(DRAWN, length=60), seed=3))
        ended = [text for text in texts if END_TOKEN in text]
        assert len(ended) > 20
        assert all(text.count(END_TOKEN) == 1 and text.endswith(END_TOKEN) for text in ended)


def test_top_k_of_one_and_a_tiny_top_p_draw_the_likeliest_token(compact: ModelDir) -> None:
    wanted = list(Sampler(compact).sample_block(PROMPTS, GREEDY, seed=0))
    for how in (replace(DRAWN, top_k=1, length=60), replace(DRAWN, top_p=1e-6, length=60)):
        assert list(Sampler(compact).sample_block(PROMPTS, how, seed=7)) == wanted


def test_a_text_that_reaches_the_length_has_no_end_token(compact: ModelDir) -> None:
    [whole] = Sampler(compact).sample_block(PROMPTS[:1], GREEDY, seed=0)
    [cut] = Sampler(compact).sample_block(PROMPTS[:1], replace(GREEDY, length=3), seed=0)
    assert END_TOKEN in whole
    assert END_TOKEN not in cut
    assert whole.startswith(cut)
    assert len(compact.tokenizer().encode([cut.removeprefix(PROMPTS[0])])[0].ids) == 3


def test_the_length_counts_behind_each_prompt_of_a_block(untrained: Untrained) -> None:
    run, how = untrained(COMPACT_TOKENS), replace(GREEDY, length=5)
    prompts = [f"{START_TOKEN}~`", f"{START_TOKEN}~`cats~^lazy cat dog~@My fluffy cat sleeps on the"]
    assert list(Sampler(run).sample_block(prompts, how, seed=0)) == [by_torch(run, prompt, 5) for prompt in prompts]


def test_a_prompt_that_fills_the_context_is_refused(compact: ModelDir, hyperparameters: Hyperparameters) -> None:
    with pytest.raises(
        UsageError, match=rf"a prompt of \d+ tokens fills the model's context of {hyperparameters.n_ctx}"
    ):
        list(Sampler(compact).sample_block([START_TOKEN + "~@" + "zq" * hyperparameters.n_ctx], GREEDY, seed=0))


def test_a_repetition_penalty_keeps_from_repeating(untrained: Untrained) -> None:
    run, how = untrained(COMPACT_TOKENS), replace(GREEDY, length=40)
    plain, penalised = (
        next(Sampler(run).sample_block([PROMPTS[0]], replace(how, repetition_penalty=penalty), seed=0))
        for penalty in (1.0, 5.0)
    )
    distinct = [len(set(text.removeprefix(PROMPTS[0]))) for text in (plain, penalised)]
    assert distinct[1] > 2 * distinct[0]


def test_an_older_checkpoint_is_sampled_with_its_own_weights(
    untrained: Untrained, hyperparameters: Hyperparameters
) -> None:
    run = untrained(COMPACT_TOKENS)
    how = replace(GREEDY, length=15)
    run.save_checkpoint(4, {name: -tensor for name, tensor in random_tensors(hyperparameters).items()}, {}, keep=2)
    older = ModelDir(run.path, 3)
    for _ in range(2):
        made = [list(Sampler(one).sample_block(PROMPTS, how, seed=0)) for one in (older, run)]
        assert made == [[by_torch(one, prompt, how.length) for prompt in PROMPTS] for one in (older, run)]
    assert made[0] != made[1]


def test_a_resumed_run_is_sampled_with_its_new_weights(finetuning: Settings) -> None:
    settings = finetuning(learning_rate=0.02)
    run = ModelDir(settings.checkpoint_dir / settings.run)
    finetune(settings)
    before = list(Sampler(run).sample_block(PROMPTS, GREEDY, seed=0))
    finetune(replace(settings, more=6))
    after = list(Sampler(run).sample_block(PROMPTS, GREEDY, seed=0))
    assert after == [by_torch(run, prompt, GREEDY.length) for prompt in PROMPTS] != before


def test_titles_are_written_without_torch(checkpoint_dir: Path, tmp_path: Path) -> None:
    """Importing it takes seconds; CTranslate2's own import of it is held off."""
    shutil.copytree(checkpoint_dir, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("ctranslate2-*"))
    program = """
import sys
from redditgen.generate.command import generate
from redditgen.settings import GenerateSettings
assert list(generate(GenerateSettings(run="trained", n=2, seed=1, novel=False)))
loaded = {"torch", "transformers"} & set(sys.modules)
assert not loaded, loaded
import torch
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)


# The distribution of the tokens

N = 100_000  # samples
PROMPT = f"{START_TOKEN}~`cats~^~@My"


def exact(run: ModelDir, how: Sampling) -> np.ndarray:
    """The probability of each token behind PROMPT, in float64."""
    model = new_network(run.hyperparameters())
    copy_to_network(run.tensors(), model)
    with torch.no_grad():
        ids = torch.tensor(tokenize_prompts([PROMPT], run.tokenizer(), COMPACT_TOKENS))
        logits = model(ids).logits[0, -1].double().numpy() / how.temperature
    order = np.argsort(-logits)
    probabilities: np.ndarray = np.exp(logits - logits.max())
    if how.top_k:
        probabilities[order[how.top_k :]] = 0
    probabilities /= probabilities.sum()
    if how.top_p:
        before = np.cumsum(probabilities[order]) - probabilities[order]
        probabilities[order[before >= how.top_p]] = 0
    probabilities /= probabilities.sum()
    return probabilities


def chi_squared(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Pearson's p; tokens that are expected less than five times count as one."""
    rare = probabilities * N < 5
    groups = [(counts[~rare], probabilities[~rare] * N)]
    if rare.any() and probabilities[rare].sum() * N >= 5:
        groups.append((counts[rare].sum(keepdims=True), probabilities[rare].sum(keepdims=True) * N))
    found, expected = (np.concatenate(column) for column in zip(*groups, strict=True))
    statistic = float(((found - expected) ** 2 / expected).sum())
    halves = torch.tensor([(len(found) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(halves[0], halves[1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"temperature": 0.7}, {"top_k": 12}, {"temperature": 0.7, "top_k": 40}, {"temperature": 0.8, "top_p": 0.6}],
)
def test_tokens_are_drawn_as_often_as_the_model_says(
    untrained: Untrained, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Of many blocks with prompts that differ, which blocks sort; and early stops change nothing."""
    run, how = untrained(COMPACT_TOKENS), replace(DRAWN, **changes, length=1)
    monkeypatch.setattr(Sampler, "_text", lambda self, ids: f" {ids[0]}")
    others = [f"{START_TOKEN}~`", f"{START_TOKEN}~`dogs~^lazy dog~@My old", f"{START_TOKEN}~`cats~^~@The"]
    prompts = [PROMPT if number % 5 else others[number % 3] for number in range(N * 5 // 4)]
    tokens = [
        int(text.rpartition(" ")[2])
        for text, prompt in zip(Sampler(run).sample(prompts, 256, how, seed=2), prompts, strict=True)
        if prompt == PROMPT
    ]
    assert len(tokens) == N
    probabilities = exact(run, how)
    counts = np.bincount(tokens, minlength=len(probabilities))
    assert counts[probabilities == 0].sum() == 0
    assert chi_squared(counts, probabilities) > 0.01
