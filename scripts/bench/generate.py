#!/usr/bin/env python3
"""Write titles with gpt-2-simple, transformers and redditgen: speed, seconds to the first title, and memory.

    scripts/bench/generate.py --run run1 --n 10 1000 10000
    scripts/bench/generate.py --model 124M --vocabulary FOLDER --n 10 1000

All have the same weights, each in a process of its own, on the CPU with all its cores, top_k 40 and temperature 0.7, at
most 100 tokens a title: gpt-2-simple with the report's call, batches of 10; transformers' `generate` on an export, in
batches of 10 and of 64; its continuous batching; and `redditgen generate` as a user calls it: to a file, the same with
no filter on, to a pipe, and to a file before the run's CTranslate2 model is made. Where a run learned titles alone, the
others go on from a record of its commonest category, up to the title, where redditgen draws a category for each.
gpt-2-simple begins with the end token or with a prefix: where a run has compact record tokens it gets the latter if the
run learned titles alone. Where it has literal ones transformers gets the end token as a stop string, and its continuous
batching, which has none, always writes on.

Of gpt-2-simple no more than 100 titles are made at once, and of transformers --transformers-most; what stands beside a
larger n is the line through the runs at 10 and at that many, marked with ~. gpt-2-simple's tokens are all that it
samples, 100 a text; `of titles` are those of finished titles alone, up to and with the end token. Of redditgen both are
those of the titles it gives, and what its filters take counts for nothing.

Seconds count from the start of the process to its end. Finished titles of a second of processor time stand beside those
of a second, which other programs on the machine slow down more. `loaded` are tokens over the seconds that the same
command takes longer than one for 10 texts of one token; blank where that is less than the latter takes itself. Files
are those of a disk whose cache is warm. `end/500` is the most resident memory in the last quarter of the time since 500
titles were there over that in its first quarter; to a file redditgen writes them eight blocks at a time.

124M has random weights and the vocabulary of FOLDER (encoder.json, vocab.bpe). As those never end a title, redditgen
has a prefix there, which keeps texts as they come, and its tokens are 100 a text as well.

gpt-2-simple needs TensorFlow 1.15: redditgen doctor --install tf1
"""

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from encode import below, kilobytes
from finetune import UPSTREAM, Watch, machine
from memory import SHAPES, random_tensors

from redditgen.engines.data.examples import tokenize_prompts, tokenize_records
from redditgen.engines.gpt2simple import tf1_environment
from redditgen.engines.gpt2simple.interpreters import clean_environment
from redditgen.errors import RedditgenError
from redditgen.gpt2.find import find_run
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import COMPACT_TOKENS
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.titles.record import END_TOKEN, START_TOKEN, Record

LENGTH, TOP_K, TEMPERATURE, BATCH = 100, 40, 0.7, 10
SAMPLED_EVERY = 0.2  # seconds
PATIENCE = 3 * 3600  # seconds for one process
UPSTREAM_MOST = 100  # titles of gpt-2-simple
SETTLED = 500  # titles, after which memory shall not grow
DELIMITER = "=" * 20
CONTINUOUS, FIRST_EVER = "continuous batching", "redditgen, first ever"
FILE, UNFILTERED, PIPE = "redditgen", "redditgen, no filters", "redditgen, to a pipe"
RANDOM = "random"

COLUMNS = (
    *("peer", "n", "seconds", "first title, s", "of it", "finished", "finished titles/s", "of it"),
    *("of a core-second", "of it"),
    *("tokens/s", "of it", "loaded", "of it", "of titles", "of it", "peak GB", "of it", "end/500"),
)

RUN_UPSTREAM = """
import json, sys, gpt_2_simple as gpt2
run, n, length, prefix, top_k, temperature, batch, end = sys.argv[1:]
sess = gpt2.start_tf_sess()
gpt2.load_gpt2(sess, run_name=run)
texts = gpt2.generate(
    sess, run_name=run, length=int(length), temperature=float(temperature), top_k=int(top_k), nsamples=int(n),
    batch_size=int(batch), prefix=prefix or None, truncate=end if prefix else None, include_prefix=False,
    return_as_list=True,
)
for text in texts:
    # It takes the prefix off together with the end token, and else leaves it.
    ended = not text.startswith(prefix) if prefix else end in text
    print(json.dumps({"text": text.partition(end)[0], "ended": ended, "tokens": int(length)}), flush=True)
"""
START_TRANSFORMERS = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
folder, n, length, prompt, top_k, temperature, batch, end, is_compact = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
how = {"do_sample": True, "top_k": int(top_k), "temperature": float(temperature), "max_new_tokens": int(length)}

def show(ids):
    ids = ids[: ids.index(tokenizer.eos_token_id) + 1] if tokenizer.eos_token_id in ids else ids
    text, found, _ = tokenizer.decode(ids, clean_up_tokenization_spaces=False).partition(end)
    tokens = len(ids) - (not int(is_compact) and ids[-1] == tokenizer.eos_token_id)  # which is padding then
    print(json.dumps({"text": text, "ended": bool(found), "tokens": tokens}), flush=True)
"""
RUN_TRANSFORMERS = (
    START_TRANSFORMERS
    + """
inputs = tokenizer(prompt, return_tensors="pt")
if not int(is_compact):
    how.update(stop_strings=[end], tokenizer=tokenizer)
for begun in range(0, int(n), int(batch)):
    rows = min(int(batch), int(n) - begun)
    for ids in model.generate(**inputs, num_return_sequences=rows, **how)[:, inputs["input_ids"].shape[1] :].tolist():
        show(ids)
"""
)
RUN_CONTINUOUS = (
    START_TRANSFORMERS
    + """
rows = [tokenizer(prompt)["input_ids"]] * int(n)
config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id, **how)
with model.continuous_batching_context_manager(generation_config=config) as manager:
    manager.add_requests(inputs=rows, max_new_tokens=int(length))
    missing = len(rows)
    while missing:
        result = manager.get_result(timeout=1)
        if result and result.error:
            sys.exit(result.error)
        if result and result.is_finished():
            show(result.generated_tokens)
            missing -= 1
        elif not result and not manager.is_running():
            sys.exit("its thread has ended")
"""
)


@dataclass(frozen=True)
class Setting:
    """What all peers get: a folder with checkpoint/RUN and hf/ in it, and how texts of the run begin."""

    folder: Path
    run: str
    opening: str
    prefix: str  # the same for gpt-2-simple
    is_compact: bool
    python: Path | None

    @property
    def model(self) -> ModelDir:
        return ModelDir(self.folder / "checkpoint" / self.run)

    @property
    def is_random(self) -> bool:
        return self.run == RANDOM


@dataclass(frozen=True)
class Text:
    text: str
    ended: bool
    tokens: int  # sampled


@dataclass(frozen=True)
class Sample:
    at: float  # seconds since the process was started
    resident: int  # bytes
    titles: int


@dataclass(frozen=True)
class Found:
    peer: str
    n: int
    seconds: float
    cpu: float  # seconds of processor time
    first: float
    finished: float
    tokens: float
    of_titles: float
    peak: int
    growth: float | None
    start: float = 0.0  # seconds of the shortest run
    failed: str = ""
    is_extrapolated: bool = False

    @property
    def loaded(self) -> float | None:
        more = self.seconds - self.start
        return self.tokens / more if more > self.start else None


Command = list[str | Path]


@dataclass(frozen=True)
class Peer:
    name: str
    command: Callable[[Setting, int, int], Command]  # for a number of texts of a length
    out: str | None = None  # the file that it writes, if not to its standard output
    most: int = 0  # titles that are made at once, if not all


# --- The peers ---


def peers(transformers_most: int = 0) -> dict[str, Peer]:
    found = [
        Peer(UPSTREAM, upstream, most=UPSTREAM_MOST),
        *(
            Peer(f"transformers, {size} at once", transformers(RUN_TRANSFORMERS, size), most=transformers_most)
            for size in (BATCH, 64)
        ),
        Peer(CONTINUOUS, transformers(RUN_CONTINUOUS, BATCH), most=transformers_most),
        Peer(FIRST_EVER, ours("--out=titles.jsonl"), "titles.jsonl"),
        Peer(FILE, ours("--out=titles.jsonl"), "titles.jsonl"),
        Peer(UNFILTERED, ours("--out=titles.jsonl", "--no-novel", "--no-unique", "--no-sfw"), "titles.jsonl"),
        Peer(PIPE, ours(f"--sample-delim={DELIMITER}\n")),
    ]
    return {peer.name: peer for peer in found}


def sampling(setting: Setting, batch: int) -> list[str]:
    return [str(TOP_K), str(TEMPERATURE), str(batch), END_TOKEN]


def upstream(setting: Setting, n: int, length: int) -> Command:
    prefix = setting.prefix
    options = [setting.run, str(n), str(length), prefix, *sampling(setting, BATCH)]
    return [setting.python or "", "-W", "ignore", "-c", RUN_UPSTREAM, *options]


def transformers(code: str, batch: int) -> Callable[[Setting, int, int], Command]:
    def command(setting: Setting, n: int, length: int) -> Command:
        prompt = setting.opening.replace(START_TOKEN, END_TOKEN) if setting.is_compact else setting.opening
        options = ["hf", str(n), str(length), prompt, *sampling(setting, batch), str(int(setting.is_compact))]
        return [sys.executable, "-c", code, *options]

    return command


def ours(*options: str) -> Callable[[Setting, int, int], Command]:
    def command(setting: Setting, n: int, length: int) -> Command:
        raw = [f"--prefix={START_TOKEN}", "--truncate="] if setting.is_random or length == 1 else []
        usual = [
            f"--run={setting.run}",
            f"--n={n}",
            f"--length={length}",
            "--overwrite" if "--out" in options[0] else "",
        ]
        return [sys.executable, "-m", "redditgen", "generate", *filter(None, usual), *raw, *options]

    return command


# --- What all of them write with ---


def prepare(options: argparse.Namespace, folder: Path, python: Path | None) -> Setting:
    """Copy the run, or make one of random weights, and export it."""
    name = RANDOM if options.model else options.run
    place = folder / "checkpoint" / name
    if options.model:
        shape = SHAPES[options.model]
        ModelDir(place).write_base(shape, Tokenizer.load(options.vocabulary), random_tensors(shape))
    else:
        source = find_run(name, options.checkpoint_dir).path
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("ctranslate2-*", "optimizer-*", "adapters-*"))
    export = [sys.executable, "-m", "redditgen", "export", f"--run={name}", "--to=hf", "--out=hf"]
    done = subprocess.run(export, cwd=folder, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip().rpartition("\n")[2])
    mark = ModelDir(place).run_info()
    opening = mark.opening_prompt(max(mark.categories, key=lambda name: mark.categories[name], default=None))
    is_compact = mark.record_tokens == COMPACT_TOKENS
    behind_end = "" if mark.learned_record_starts else opening.removeprefix(START_TOKEN)
    return Setting(folder, name, opening, behind_end if is_compact else opening, is_compact, python)


# --- One process ---


class Samples(Watch):
    """Keeps each sample of the memory, with the titles that were there."""

    def __init__(self, process: "subprocess.Popen[str]", count: Callable[[], int], began: float) -> None:
        super().__init__(process)
        self.count, self.began, self.all = count, began, list[Sample]()

    def run(self) -> None:
        while not self.ended.wait(SAMPLED_EVERY):
            resident = sum(kilobytes(pid, "status", "VmRSS:") for pid in below([self.root])) << 10
            self.peak = max(self.peak, resident, kilobytes(self.root, "status", "VmHWM:") << 10)
            if resident:
                self.all.append(Sample(time.monotonic() - self.began, resident, self.count()))

    def first(self) -> float:
        return next((sample.at for sample in self.all if sample.titles), float("inf"))

    def growth(self) -> float | None:
        """The most memory of the last quarter of the time over that of the first, from when enough titles were there.

        None if none came after that.
        """
        settled = [sample for sample in self.all if sample.titles >= SETTLED]
        if not settled or settled[0].titles == settled[-1].titles:
            return None
        quarter = -(-len(settled) // 4)
        first, last = (max(sample.resident for sample in some) for some in (settled[:quarter], settled[-quarter:]))
        return last / first


class LineCount:
    """The lines of an output so far, be it in the folder that it grows in or at its place."""

    def __init__(self, out: Path) -> None:
        self._places = (out.with_name(f".{out.name}.partial") / "0", out)
        self._read = self._lines = 0

    def __call__(self) -> int:
        for place in self._places:
            try:
                with place.open("rb") as file:
                    file.seek(self._read)
                    new = file.read()
            except OSError:
                continue
            self._read, self._lines = self._read + len(new), self._lines + new.count(b"\n")
            break
        return self._lines


def variables(peer: Peer) -> dict[str, str]:
    # Threads that spin while they wait would measure whatever else the machine does.
    usual = clean_environment() if peer.name == UPSTREAM else dict(os.environ)
    passive = {"OMP_WAIT_POLICY": "PASSIVE", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {name: value for name, value in (usual | passive).items() if name != "OMP_NUM_THREADS"}


@dataclass(frozen=True)
class Run:
    """What a process wrote: its lines, and when the first title was there."""

    lines: list[str]
    seconds: float
    cpu: float
    first: float
    watch: Samples
    failed: str


def watched(peer: Peer, setting: Setting, n: int, length: int) -> Run:
    out = setting.folder / peer.out if peer.out else None
    if out:
        out.unlink(missing_ok=True)
    lines, first = list[str](), float("inf")
    count = LineCount(out) if out else lambda: sum(map(is_title, lines))
    with (setting.folder / "said.txt").open("w+", encoding="utf8") as said:
        began, cpu = time.monotonic(), cpu_of_children()
        process = subprocess.Popen(
            peer.command(setting, n, length), cwd=setting.folder, env=variables(peer), stdout=subprocess.PIPE,
            stderr=said, encoding="utf8", errors="replace",
        )  # fmt: skip
        watch, timer = Samples(process, count, began), threading.Timer(PATIENCE, process.kill)
        watch.start()
        timer.start()
        try:
            for line in process.stdout or ():
                lines.append(line)
                if is_title(line):
                    first = min(first, time.monotonic() - began)
            code = process.wait()
            seconds = time.monotonic() - began
        finally:
            timer.cancel()
            process.kill()
            watch.ended.set()
            watch.join()
        said.seek(0)
        failed = said.read().strip().rpartition("\n")[2] or f"ended with {code}" if code else ""
    return Run(lines, seconds, cpu_of_children() - cpu, min(first, watch.first(), seconds), watch, failed)


def cpu_of_children() -> float:
    """Processor seconds of those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def is_title(line: str) -> bool:
    """Whether a title is there with this line of a standard output."""
    return line.startswith('{"text"') or line == f"{DELIMITER}\n"


def texts_of(peer: Peer, setting: Setting, lines: Sequence[str], n: int) -> Iterator[Text]:
    if peer.name == PIPE or (peer.out and setting.is_random):
        # Without its category and keywords, what a title took can't be told.
        yield from itertools.repeat(Text("", not setting.is_random, LENGTH if setting.is_random else 0), n)
    elif peer.out:
        rows = map(json.loads, (setting.folder / peer.out).read_text(encoding="utf8").splitlines())
        is_marked = setting.model.run_info().sections != ()
        texts = [
            (row["prompt"], Record(row["category"], row["keywords"], row["title"], has_sections=is_marked))
            for row in rows
        ]
        for tokens in tokens_behind(setting, texts):
            yield Text("", True, tokens)
    else:
        yield from (Text(**json.loads(line)) for line in lines if is_title(line))


def tokens_behind(setting: Setting, texts: Sequence[tuple[str, Record]]) -> list[int]:
    """The tokens of records behind their prompts, up to and with the end token."""
    model, kind = setting.model, setting.model.run_info().record_tokens
    prompts = tokenize_prompts([prompt for prompt, _ in texts], model.tokenizer(), kind)
    lengths = tokenize_records(
        [record for _, record in texts], model.tokenizer(), kind, model.hyperparameters().n_ctx
    ).sequences.lengths
    return [int(length) - len(prompt) for length, prompt in zip(lengths, prompts, strict=True)]


def tokens_of_titles(peer: Peer, setting: Setting, texts: Sequence[Text]) -> int:
    ended = [text for text in texts if text.ended]
    if peer.out or not any(text.text for text in ended):
        return sum(text.tokens for text in ended)
    rows = setting.model.tokenizer().encode([text.text + ("" if setting.is_compact else END_TOKEN) for text in ended])
    return sum(len(row.ids) + setting.is_compact for row in rows)


def measure(peer: Peer, setting: Setting, n: int, start: float) -> Found:
    if peer.name == FIRST_EVER:
        for made in setting.model.path.glob("ctranslate2-*"):
            shutil.rmtree(made)
    run = watched(peer, setting, n, LENGTH)
    texts = [] if run.failed else list(texts_of(peer, setting, run.lines, n))
    return Found(
        peer=peer.name,
        n=n,
        seconds=run.seconds,
        cpu=run.cpu,
        first=run.first,
        finished=sum(text.ended for text in texts),
        tokens=sum(text.tokens for text in texts),
        of_titles=tokens_of_titles(peer, setting, texts),
        peak=run.watch.peak,
        growth=run.watch.growth(),
        start=start,
        failed=run.failed,
    )


def measured(peer: Peer, setting: Setting, numbers: Sequence[int]) -> Iterator[Found]:
    if peer.name == FIRST_EVER:
        yield measure(peer, setting, numbers[0], float("inf"))
        return
    start = watched(peer, setting, BATCH, 1)
    if start.failed:
        yield Found(peer.name, BATCH, start.seconds, start.cpu, 0, 0, 0, 0, start.watch.peak, None, failed=start.failed)
        return
    wanted = sorted({min(n, peer.most) for n in numbers} | {BATCH}) if peer.most else numbers
    found = [measure(peer, setting, n, start.seconds) for n in wanted]
    yield from found
    yield from (extrapolated(found, n) for n in numbers if n > wanted[-1])


def extrapolated(found: Sequence[Found], n: int) -> Found:
    """On the line through the first run and the last."""
    few, many = found[0], found[-1]

    def at(here: float, there: float) -> float:
        return there + (there - here) * (n - many.n) / (many.n - few.n)

    return replace(
        many,
        n=n,
        seconds=at(few.seconds, many.seconds),
        cpu=at(few.cpu, many.cpu),
        first=max(min(at(few.first, many.first), at(few.seconds, many.seconds)), few.first, many.first),
        finished=many.finished / many.n * n,
        tokens=many.tokens / many.n * n,
        of_titles=many.of_titles / many.n * n,
        growth=None,
        is_extrapolated=True,
    )


# --- The table ---


def shown(found: Sequence[Found], upstream: Sequence[Found]) -> str:
    """A markdown table, each beside gpt-2-simple at the same n."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    beside = {one.n: one for one in upstream}
    for one in found:
        cells = [one.peer, str(one.n), one.failed] if one.failed else cells_of(one, beside.get(one.n))
        lines.append("| " + " | ".join([*cells, *[""] * (len(COLUMNS) - len(cells))]) + " |")
    return "\n".join(lines)


def cells_of(one: Found, upstream: Found | None) -> list[str]:
    about = "~" if one.is_extrapolated else ""

    def pair(form: str, value: Callable[[Found], float | None]) -> list[str]:
        mine, theirs = value(one), value(upstream) if upstream else None
        shown = about + format(mine, form) if mine else ""
        return [shown, f"{mine / theirs:.2f}" if mine and theirs else ""]

    return [
        *(one.peer, str(one.n), f"{about}{one.seconds:.1f}"),
        *pair(".1f", lambda it: it.first),
        f"{about}{one.finished:.0f}",
        *pair(".2f", lambda it: it.finished / it.seconds),
        *pair(".2f", lambda it: it.finished / it.cpu),
        *pair(".0f", lambda it: it.tokens / it.seconds),
        *pair(".0f", lambda it: it.loaded),
        *pair(".1f", lambda it: it.of_titles / it.seconds),
        *pair(".2f", lambda it: it.peak / 1e9),
        "" if one.growth is None else f"{one.growth:.3f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="run1", help="a finetuned one, best with --record-tokens literal")
    parser.add_argument("--checkpoint-dir", type=Path, default=Path("checkpoint"))
    parser.add_argument("--model", choices=("124M",), help="random weights of this shape, instead of a run")
    parser.add_argument("--vocabulary", type=Path, help="folder with GPT-2's encoder.json and vocab.bpe, for 124M")
    parser.add_argument("--n", type=int, nargs="+", default=[10, 1000, 10000], help="titles; multiples of 10")
    parser.add_argument("--transformers-most", type=int, default=1000, help="titles of transformers at once")
    parser.add_argument("--only", action="append", choices=tuple(peers()), help="also again and again")
    parser.add_argument("--tf1-python", type=Path, help="[default: as redditgen finetune]")
    options = parser.parse_args()
    if options.model and not options.vocabulary:
        sys.exit("--model 124M needs --vocabulary, a folder with GPT-2's encoder.json and vocab.bpe")
    if any(n < 1 or n % BATCH for n in options.n):
        sys.exit(f"--n: gpt-2-simple can make multiples of its batch, {BATCH}, alone")
    wanted = options.only or list(peers())
    try:
        python = tf1_environment.find_python(options.tf1_python) if UPSTREAM in wanted else None
        with tempfile.TemporaryDirectory() as name:
            setting = prepare(options, Path(name), python)
            compare(setting, peers(options.transformers_most), wanted, sorted(set(options.n)))
    except RedditgenError as error:
        sys.exit(f"{error}")


def compare(setting: Setting, peers: dict[str, Peer], wanted: Sequence[str], numbers: Sequence[int]) -> None:
    found, upstream = list[Found](), list[Found]()
    for peer in (peer for name, peer in peers.items() if name in wanted):
        for one in measured(peer, setting, numbers):
            found.append(one)
            if peer.name == UPSTREAM:
                upstream.append(one)
            print(shown([one], upstream), file=sys.stderr, flush=True)
    kind = "compact" if setting.is_compact else "literal"
    what = "124M, random weights" if setting.is_random else f"run {setting.run}"
    print(f"{what}, {kind} record tokens; {machine()}\n\n{shown(found, upstream)}")


if __name__ == "__main__":
    main()
