import pytest

from redditgen.gpt2.mark import COMPACT, LITERAL, NO_RECORDS, Mark
from redditgen.gpt2.weights import Hparams
from redditgen.model_card import SNIPPETS, model_card

ALL = ("category", "keywords", "title")


def card(mark: Mark, hparams: Hparams, to: str = "hf") -> str:
    return model_card("mine", 500, mark, hparams, to=to)


@pytest.mark.parametrize("to", SNIPPETS)
def test_a_card_says_what_the_model_is_and_that_its_text_is_synthetic(hparams: Hparams, to: str) -> None:
    text = card(Mark(record_tokens=COMPACT, model="mini", sections=ALL), hparams, to)
    assert text.startswith("---\npipeline_tag: text-generation\ntags: [gpt2, redditgen, synthetic]\n---\n\n# mine\n")
    assert "(2 layers of width 32, 340 tokens, a context of 64), finetuned from `mini` to step 500" in text
    assert "What it writes is synthetic" in text
    assert "$" not in text
    compile(text.partition("```python\n")[2].partition("```")[0], to, "exec")


@pytest.mark.parametrize(
    ("mark", "record", "prompt"),
    [
        (
            Mark(COMPACT, sections=ALL, categories={"cats": 1, "dogs": 2}),
            "<|startoftext|>~`category~^keywords~@title<|endoftext|>",
            "<|endoftext|>~`dogs~^cat window~@",
        ),
        (
            Mark(LITERAL, sections=ALL),
            "<|startoftext|>~`category~^keywords~@title<|endoftext|>",
            "<|startoftext|>~`cats~^cat window~@",
        ),
        (Mark(), "<|startoftext|>~`category~^keywords~@title<|endoftext|>", "<|startoftext|>~`cats~^cat window~@"),
        (Mark(COMPACT, sections=("title", "body")), "<|startoftext|>~@title~}body<|endoftext|>", "<|endoftext|>~@"),
        (Mark(LITERAL, sections=("body",)), "<|startoftext|>~}body<|endoftext|>", "<|startoftext|>~}"),
        (
            Mark(COMPACT, sections=("category", "keywords")),
            "<|startoftext|>~`category~^keywords<|endoftext|>",
            "<|endoftext|>~`cats~^",
        ),
        (Mark(COMPACT, sections=()), "<|startoftext|>title<|endoftext|>", "<|endoftext|>"),
        (Mark(LITERAL, sections=()), "<|startoftext|>title<|endoftext|>", "<|startoftext|>"),
    ],
)
def test_a_card_shows_the_runs_own_records_and_how_to_ask_for_one(
    hparams: Hparams, mark: Mark, record: str, prompt: str
) -> None:
    text = card(mark, hparams)
    assert f"\n```\n{record}\n```\n" in text
    assert f"tokenizer({prompt!r}, " in text
    assert ("stands the one token" in text) == (mark.record_tokens == COMPACT)
    assert ("are spelled out" in text) == (mark.record_tokens == LITERAL)


def test_a_run_of_plain_text_has_no_records(hparams: Hparams) -> None:
    text = card(Mark(NO_RECORDS), hparams)
    assert "It has learned plain text" in text
    assert "startoftext" not in text
    assert "tokenizer('<|endoftext|>', " in text
