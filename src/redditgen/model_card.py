"""The README.md of an exported run: what the model writes, how to ask it, and code that does.

The head in YAML is what Hugging Face's hub reads: https://huggingface.co/docs/hub/model-cards
"""

from string import Template

from redditgen import __version__, markup
from redditgen.gpt2.mark import COMPACT, NO_RECORDS, Mark
from redditgen.gpt2.weights import Hparams
from redditgen.markup import END, START, Record

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
    COMPACT: f"In place of both `{START}` and `{END}` stands the one token `{END}`.",
    NO_RECORDS: f"It has learned plain text. `{END}` stands between texts, as one token.",
}
_SPELLED = f"`{START}` and `{END}` are spelled out, in several tokens each, as gpt-2-simple does."


def model_card(name: str, step: int, mark: Mark, hparams: Hparams, *, to: str) -> str:
    """The text of a run's README.md, in Markdown, with a snippet for the layout `to`."""
    length = min(60, hparams.n_ctx // 2)  # tokens
    return _CARD.substitute(
        vars(hparams),
        name=name,
        base=f" from `{mark.model}`" if mark.model else "",
        step=step,
        version=__version__,
        form=_form(mark),
        snippet=Template(SNIPPETS[to]).substitute(prompt=repr(_prompt(mark)), length=length, end=END),
    )


def _form(mark: Mark) -> str:
    tokens = _TOKENS.get(mark.record_tokens, _SPELLED)
    if mark.record_tokens == NO_RECORDS:
        return tokens
    names = _sections(mark)
    record = _record({name: name for name in names}) if names else Record(title="title", marked=False)
    return _RECORDS.substitute(record=markup.build(record), tokens=tokens)


def _prompt(mark: Mark) -> str:
    """A prompt for a title, in which the tokenizer reads `<|endoftext|>` as the one token."""
    if mark.record_tokens == NO_RECORDS:
        return END
    prompt = _record_prompt(mark)
    return END + prompt.removeprefix(START) if mark.record_tokens == COMPACT else prompt


def _record_prompt(mark: Mark) -> str:
    sections = _sections(mark)
    written = "title" if "title" in sections else "".join(sections[-1:])
    category = max(mark.categories, key=mark.categories.__getitem__, default="cats")
    fields = {"category": category, "keywords": "cat window"}
    asked = {name: text for name, text in fields.items() if name in sections and name != written}
    return markup.prompt(_record(asked), written)


def _record(fields: dict[str, str]) -> Record:
    get = fields.get
    return Record(category=get("category"), keywords=get("keywords"), title=get("title"), body=get("body"))


def _sections(mark: Mark) -> tuple[str, ...]:
    """A run's sections; what the report's records have where nobody knows them."""
    return ("category", "keywords", "title") if mark.sections is None else mark.sections
