"""The README.md of an exported run: what the model writes, how to ask it, and code that does.

The head in YAML is what Hugging Face's hub reads: https://huggingface.co/docs/hub/model-cards
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

_CARD = Template("""\
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

_RECORDS = Template("""\
It has learned records:

```
$record
```

$tokens""")

_TOKENS = {
    COMPACT_TOKENS: f"In place of both `{START_TOKEN}` and `{END_TOKEN}` stands the one token `{END_TOKEN}`.",
    NO_RECORDS: f"It has learned plain text. `{END_TOKEN}` stands between texts, as one token.",
}
_SPELLED = f"`{START_TOKEN}` and `{END_TOKEN}` are spelled out, in several tokens each, as gpt-2-simple does."


def format_model_card(name: str, step: int, run_info: RunInfo, hyperparameters: Hyperparameters, *, to: str) -> str:
    """The text of a run's README.md, in Markdown, with a snippet for the layout `to`."""
    length = min(60, hyperparameters.n_ctx // 2)  # tokens
    return _CARD.substitute(
        vars(hyperparameters),
        name=name,
        base=f" from `{run_info.model}`" if run_info.model else "",
        step=step,
        version=__version__,
        form=_form(run_info),
        snippet=Template(SNIPPETS[to]).substitute(prompt=repr(_prompt(run_info)), length=length, end=END_TOKEN),
    )


def _form(run_info: RunInfo) -> str:
    tokens = _TOKENS.get(run_info.record_tokens, _SPELLED)
    if run_info.record_tokens == NO_RECORDS:
        return tokens
    names = _sections(run_info)
    record = _record({name: name for name in names}) if names else Record(title="title", has_sections=False)
    return _RECORDS.substitute(record=build(record), tokens=tokens)


def _prompt(run_info: RunInfo) -> str:
    """A prompt for a title, in which the tokenizer reads `<|endoftext|>` as the one token."""
    if run_info.record_tokens == NO_RECORDS:
        return END_TOKEN
    prompt = _record_prompt(run_info)
    return END_TOKEN + prompt.removeprefix(START_TOKEN) if run_info.record_tokens == COMPACT_TOKENS else prompt


def _record_prompt(run_info: RunInfo) -> str:
    sections = _sections(run_info)
    written = "title" if "title" in sections else "".join(sections[-1:])
    category = max(run_info.categories, key=run_info.categories.__getitem__, default="cats")
    fields = {"category": category, "keywords": "cat window"}
    asked = {name: text for name, text in fields.items() if name in sections and name != written}
    return build_prompt(_record(asked), written)


def _record(fields: dict[str, str]) -> Record:
    get = fields.get
    return Record(category=get("category"), keywords=get("keywords"), title=get("title"), body=get("body"))


def _sections(run_info: RunInfo) -> tuple[str, ...]:
    """A run's sections; what the report's records have where nobody knows them."""
    return ("category", "keywords", "title") if run_info.sections is None else run_info.sections
