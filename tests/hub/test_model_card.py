import pytest

from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.run_info import COMPACT_TOKENS, LITERAL_TOKENS, NO_RECORDS, RunInfo
from redditgen.hub.model_card import SNIPPETS, format_model_card

ALL = ("category", "keywords", "title")


def card(run_info: RunInfo, hyperparameters: Hyperparameters, to: str = "hf") -> str:
    return format_model_card("mine", 500, run_info, hyperparameters, to=to)


@pytest.mark.parametrize("to", SNIPPETS)
def test_a_card_says_what_the_model_is_and_that_its_text_is_synthetic(
    hyperparameters: Hyperparameters, to: str
) -> None:
    text = card(RunInfo(record_tokens=COMPACT_TOKENS, model="mini", sections=ALL), hyperparameters, to)
    assert text.startswith("---\npipeline_tag: text-generation\ntags: [gpt2, redditgen, synthetic]\n---\n\n# mine\n")
    assert "(2 layers of width 32, 340 tokens, a context of 64), finetuned from `mini` to step 500" in text
    assert "What it writes is synthetic" in text
    assert "$" not in text
    compile(text.partition("```python\n")[2].partition("```")[0], to, "exec")


@pytest.mark.parametrize(
    ("run_info", "record", "prompt"),
    [
        (
            RunInfo(COMPACT_TOKENS, sections=ALL, categories={"cats": 1, "dogs": 2}),
            "<|startoftext|>~`category~^keywords~@title<|endoftext|>",
            "<|endoftext|>~`dogs~^cat window~@",
        ),
        (
            RunInfo(LITERAL_TOKENS, sections=ALL),
            "<|startoftext|>~`category~^keywords~@title<|endoftext|>",
            "<|startoftext|>~`cats~^cat window~@",
        ),
        (RunInfo(), "<|startoftext|>~`category~^keywords~@title<|endoftext|>", "<|startoftext|>~`cats~^cat window~@"),
        (
            RunInfo(COMPACT_TOKENS, sections=("title", "body")),
            "<|startoftext|>~@title~}body<|endoftext|>",
            "<|endoftext|>~@",
        ),
        (RunInfo(LITERAL_TOKENS, sections=("body",)), "<|startoftext|>~}body<|endoftext|>", "<|startoftext|>~}"),
        (
            RunInfo(COMPACT_TOKENS, sections=("category", "keywords")),
            "<|startoftext|>~`category~^keywords<|endoftext|>",
            "<|endoftext|>~`cats~^",
        ),
        (RunInfo(COMPACT_TOKENS, sections=()), "<|startoftext|>title<|endoftext|>", "<|endoftext|>"),
        (RunInfo(LITERAL_TOKENS, sections=()), "<|startoftext|>title<|endoftext|>", "<|startoftext|>"),
    ],
)
def test_a_card_shows_the_runs_own_records_and_how_to_ask_for_one(
    hyperparameters: Hyperparameters, run_info: RunInfo, record: str, prompt: str
) -> None:
    text = card(run_info, hyperparameters)
    assert f"\n```\n{record}\n```\n" in text
    assert f"tokenizer({prompt!r}, " in text
    assert ("stands the one token" in text) == (run_info.record_tokens == COMPACT_TOKENS)
    assert ("are spelled out" in text) == (run_info.record_tokens == LITERAL_TOKENS)


def test_a_run_of_plain_text_has_no_records(hyperparameters: Hyperparameters) -> None:
    text = card(RunInfo(NO_RECORDS), hyperparameters)
    assert "It has learned plain text" in text
    assert "startoftext" not in text
    assert "tokenizer('<|endoftext|>', " in text
