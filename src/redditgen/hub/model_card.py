"""The README.md of an exported run: what the model generates, the form of its texts, and code that samples one.

The YAML header is the metadata that Hugging Face's hub reads: https://huggingface.co/docs/hub/model-cards
"""

from string import Template

from redditgen import __version__
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.run_info import COMPACT_TOKENS, NO_RECORDS, RunInfo
from redditgen.titles.record import END_TOKEN, START_TOKEN, Record, build, build_prompt

SNIPPETS = {
    "hf": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer($prompt, return_tensors="pt")
[ids] = model.generate(**inputs, do_sample=True, temperature=0.7, top_k=40, max_new_tokens=$length)
text = tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
print(text.partition("$end")[0])
""",
    "ct2": """\
import ctranslate2
from tokenizers import Tokenizer

folder = "."  # where this file lies
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
generator = ctranslate2.Generator(folder)
tokens = tokenizer.encode($prompt).tokens
[result] = generator.generate_batch(
    [tokens], sampling_temperature=0.7, sampling_topk=40, max_length=$length, include_prompt_in_result=False
)
print(tokenizer.decode(result.sequences_ids[0]).partition("$end")[0])
""",
}

_CARD_TEMPLATE = Template("""\
---
pipeline_tag: text-generation
tags: [gpt2, redditgen, synthetic]
---

# $name

A GPT-2 ($n_layer layers of width $n_embd, $n_vocab tokens, a context of $n_ctx), finetuned$base to step $step with
redditgen $version.

What it writes is synthetic, and often wrong. Say so where you publish it.

## Form

$form

## Use

```python
$snippet```
""")

_RECORDS_TEMPLATE = Template("""\
It has learned records:

```
$record
```

$tokens""")

_TOKEN_NOTES = {
    COMPACT_TOKENS: f"In place of both `{START_TOKEN}` and `{END_TOKEN}` stands the one token `{END_TOKEN}`.",
    NO_RECORDS: f"It has learned plain text. `{END_TOKEN}` stands between texts, as one token.",
}
_LITERAL_TOKENS_NOTE = (
    f"`{START_TOKEN}` and `{END_TOKEN}` are spelled out, in several tokens each, as gpt-2-simple does."
)


def format_model_card(name: str, step: int, run_info: RunInfo, hyperparameters: Hyperparameters, *, to: str) -> str:
    """Return the text of a run's README.md, in Markdown; `to` is the layout of the export, a key of `SNIPPETS`."""
    length = min(60, hyperparameters.n_ctx // 2)  # tokens
    return _CARD_TEMPLATE.substitute(
        vars(hyperparameters),
        name=name,
        base=f" from `{run_info.model}`" if run_info.model else "",
        step=step,
        version=__version__,
        form=_describe_form(run_info),
        snippet=Template(SNIPPETS[to]).substitute(prompt=repr(_example_prompt(run_info)), length=length, end=END_TOKEN),
    )


def _describe_form(run_info: RunInfo) -> str:
    token_note = _TOKEN_NOTES.get(run_info.record_tokens, _LITERAL_TOKENS_NOTE)
    if run_info.record_tokens == NO_RECORDS:
        return token_note
    names = _section_names(run_info)
    record = _to_record({name: name for name in names}) if names else Record(title="title", has_sections=False)
    return _RECORDS_TEMPLATE.substitute(record=build(record), tokens=token_note)


def _example_prompt(run_info: RunInfo) -> str:
    """Return a prompt for a title. The tokenizer encodes `<|endoftext|>` in it as one token."""
    if run_info.record_tokens == NO_RECORDS:
        return END_TOKEN
    prompt = _example_record_prompt(run_info)
    return END_TOKEN + prompt.removeprefix(START_TOKEN) if run_info.record_tokens == COMPACT_TOKENS else prompt


def _example_record_prompt(run_info: RunInfo) -> str:
    """Return a record up to its title, or up to its last section where it has no title."""
    sections = _section_names(run_info)
    target = "title" if "title" in sections else "".join(sections[-1:])
    category = max(run_info.categories, key=run_info.categories.__getitem__, default="cats")
    fields = {"category": category, "keywords": "cat window"}
    given = {name: text for name, text in fields.items() if name in sections and name != target}
    return build_prompt(_to_record(given), target)


def _to_record(fields: dict[str, str]) -> Record:
    get = fields.get
    return Record(category=get("category"), keywords=get("keywords"), title=get("title"), body=get("body"))


def _section_names(run_info: RunInfo) -> tuple[str, ...]:
    """Return the names of the sections of a run's records; where they are unknown, those of the report's records."""
    return ("category", "keywords", "title") if run_info.sections is None else run_info.sections
