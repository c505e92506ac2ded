"""Reads mutants of a model's files in a process that may take little memory, and prints what came of them as JSON.

python untrusted_reader.py KIND FOLDER FIRST LAST

`FOLDER/whole` holds the files as they should be; each mutant, of a number, stands in `FOLDER/mutant` while it is read,
and is left there if this process ends on it.
"""

import io
import json
import random
import re
import resource
import signal
import struct
import sys
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from redditgen.errors import RedditgenError
from redditgen.finetune.dataset.token_arrays import decode_with_record_tokens, read_token_arrays
from redditgen.gpt2.formats import sstable, tf_checkpoint
from redditgen.gpt2.formats.hugging_face import HuggingFaceDir
from redditgen.gpt2.metrics import best_report
from redditgen.gpt2.model_dir import ModelDir
from redditgen.titles.novelty import TitleIndex

MEMORY = 200 << 20  # bytes more than a whole model takes
SECONDS = 20  # a mutant

Files = dict[str, bytes]
Reading = Callable[[], object]

HUGE = (0, 1, 2, 127, 128, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
VALUES: tuple[str, ...] = (
    *(str(number) for number in HUGE),
    *("-1", "-9223372036854775808", "1" + "0" * 400, "9" * 5000, "0.5", "1e999", "-0", "NaN", "Infinity"),
    *("null", "true"),
    *('""', '"a"', '"7"', '"\\n"', '"\\ud800"', '"\\u0000"', '"../../x"', '"/etc/passwd"', "[]", "{}", "[[]]", '["a"]'),
    *("[" * 100_000, '{"a":' * 100_000, "[" * 500 + "]" * 500, '{"a": [1, {"b": null}]}', "\x00", "\ufeff", "\u2028"),
)


# --- Mutations ---


def damage(rng: random.Random, content: bytes) -> bytes:
    """Bytes with something changed, and often more than that."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        rng.choice(DAMAGES)(rng, changed)
    return bytes(changed)


def place(rng: random.Random, content: bytearray) -> int:
    """Near an end as often as anywhere else, since that is where headers and footers stand."""
    end = len(content)
    return rng.choice((rng.randrange(end + 1), rng.randrange(min(end, 64) + 1), end - rng.randrange(min(end, 64) + 1)))


def span(rng: random.Random, content: bytearray) -> slice:
    start = place(rng, content)
    return slice(start, start + rng.choice((1, 2, 4, 8, 16, 100, 5000)))


def flip(rng: random.Random, content: bytearray) -> None:
    if content:
        content[min(place(rng, content), len(content) - 1)] ^= 1 << rng.randrange(8)


def truncate(rng: random.Random, content: bytearray) -> None:
    del content[place(rng, content) :]


def remove(rng: random.Random, content: bytearray) -> None:
    del content[span(rng, content)]


def double(rng: random.Random, content: bytearray) -> None:
    part = span(rng, content)
    content[part.start : part.start] = bytes(content[part]) * rng.choice((1, 1, 100))


def splice(rng: random.Random, content: bytearray) -> None:
    part = bytes(content[span(rng, content)])
    there = place(rng, content)
    content[there : there + len(part)] = part


def number(rng: random.Random, content: bytearray) -> None:
    """A size of nonsense where a header may have one."""
    there, value = place(rng, content), rng.choice(HUGE)
    form = rng.choice(("<B", "<H", ">H", "<I", ">I", "<Q", ">Q"))
    packed = struct.pack(form, value % 256 ** struct.calcsize(form))
    content[there : there + len(packed)] = packed


def varint(rng: random.Random, content: bytearray) -> None:
    there = place(rng, content)
    value = sstable.encode_varint(rng.choice(HUGE) + rng.choice((0, 2**64)))
    content[there : there + rng.choice((1, len(value)))] = value


def noise(rng: random.Random, content: bytearray) -> None:
    part = span(rng, content)
    content[part] = rng.randbytes(part.stop - part.start)


DAMAGES = (flip, truncate, remove, double, splice, number, varint, noise)


def damaged_text(rng: random.Random, content: bytes) -> bytes:
    """JSON, or lines, with a value, a name or a character that should not be there."""
    kind, text = rng.randrange(4), content.decode("utf8")
    if kind == 0:
        return damage(rng, content)
    if kind == 1:
        return rng.choice(VALUES).encode("utf8", "surrogatepass")
    found = list(re.finditer(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|null|true|false|\[[^\[\]]*\]|\w+', text))
    if not found:
        return damage(rng, content)
    which = rng.choice((rng.choice(found), rng.choice(found[:40]), rng.choice(found[-10:])))
    value = rng.choice(VALUES) if kind == 2 else rng.choice(found)[0]
    return (text[: which.start()] + value + text[which.end() :]).encode("utf8", "surrogatepass")


def damaged_bundle(rng: random.Random, files: Files) -> Files:
    """A checkpoint's index or data changed; the index in most cases with checksums that fit what it holds then."""
    (index,) = (name for name in files if name.endswith(".index"))
    (data,) = (name for name in files if ".data-" in name)
    kind = rng.randrange(10)
    if kind == 0:
        return files | {data: damage(rng, files[data])}
    if kind == 1:
        return files | {index: damage(rng, files[index])}
    if kind == 2:
        return files | {name: damage(rng, files[name]) for name in (index, data)}
    return files | {index: rng.choice((remade_index, remade_index, remade_block))(rng, files[index])}


def remade_index(rng: random.Random, content: bytes) -> bytes:
    """The same table of other entries."""
    pairs = list(sstable.read_entries(content))
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(len(pairs)) if rng.random() < 0.8 else 0
        key, value = pairs[at]
        kind = rng.randrange(6)
        if kind == 0:
            pairs[at] = (damage(rng, key), value)
        elif kind == 1:
            pairs[at : at + 1] = []
        elif kind == 2:
            pairs.insert(rng.randrange(len(pairs) + 1), (key, value))
        elif kind == 3:
            pairs[at] = (key, other_entry(rng))
        else:
            pairs[at] = (key, damage(rng, value))
        pairs = pairs or [(b"", b"")]
    return built_table(block(pairs))


def other_entry(rng: random.Random) -> bytes:
    """An entry with fields of nonsense in the right form: type, shape, shard, offset, size, checksum."""
    dims = b""
    for _ in range(rng.choice((0, 1, 2, 3, 30))):
        dim = b"\x08" + sstable.encode_varint(rng.choice(HUGE))
        dims += b"\x12" + sstable.encode_varint(len(dim)) + dim
    fields = b"\x08" + sstable.encode_varint(rng.choice((1, 1, 1, 2, 3, 9, 19, 7, 2**40)))
    fields += b"\x12" + sstable.encode_varint(rng.choice((len(dims), 2**40))) + dims
    for tag in rng.sample((b"\x18", b"\x20", b"\x28"), rng.randrange(4)):
        fields += tag + sstable.encode_varint(rng.choice(HUGE))
    return fields + b"\x35" + rng.randbytes(4)


def remade_block(rng: random.Random, content: bytes) -> bytes:
    """A block of damaged bytes, or handles that lead elsewhere, with right checksums."""
    body = block(sstable.read_entries(content))
    handles = [b"".join(sstable.encode_varint(rng.choice((*HUGE, len(body)))) for _ in range(2))] * rng.randrange(2)
    return built_table(damage(rng, body) if rng.random() < 0.8 else body, handles * rng.choice((1, 1, 50)))


def block(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Entries without what they share with those before them, and one restart."""
    sizes = ((key, value, sstable.encode_varint(len(key)) + sstable.encode_varint(len(value))) for key, value in pairs)
    return b"".join(b"\0" + size + key + value for key, value, size in sizes) + struct.pack("<II", 0, 1)


def built_table(body: bytes, more: Sequence[bytes] = ()) -> bytes:
    """A table of one block, with a checksum that is right, and further handles to blocks."""
    content = bytearray()
    handle = with_trailer(content, body)
    index = with_trailer(content, block((b"z", handle) for handle in (handle, *more)))
    footer = (b"\0\0" + index).ljust(sstable.FOOTER - 8, b"\0")
    return bytes(content) + footer + struct.pack("<Q", sstable.MAGIC)


def with_trailer(content: bytearray, block: bytes) -> bytes:
    handle = sstable.encode_varint(len(content)) + sstable.encode_varint(len(block))
    content += block + struct.pack("<BI", 0, sstable.masked_crc(block + b"\0"))
    return handle


def damaged_one(*names: str) -> Callable[[random.Random, Files], Files]:
    """Changes one of the named files, by what it is."""

    def change(rng: random.Random, files: Files) -> Files:
        name = rng.choice(names)
        is_text = name.endswith((".json", ".jsonl", ".bpe", ".txt")) or name == "checkpoint"
        return files | {name: (damaged_text if is_text else damage)(rng, files[name])}

    return change


def damaged_npz(name: str) -> Callable[[random.Random, Files], Files]:
    """An archive of arrays whose bytes are changed, or whose members are, with checksums that fit."""

    def change(rng: random.Random, files: Files) -> Files:
        if rng.random() < 0.3:
            return files | {name: damage(rng, files[name])}
        made = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(files[name])) as whole, zipfile.ZipFile(made, "w") as archive:
            members = whole.namelist()
            chosen = rng.choice(members)
            for member in members:
                content = whole.read(member)
                if member == chosen:
                    content = other_array(rng, content)
                kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
                there = rng.choice((member, member, member, "../../" + member, "/tmp/" + member, "x\n"))
                if there not in archive.NameToInfo:
                    archive.writestr(zipfile.ZipInfo(there), content, kind)
        content = made.getvalue()
        return files | {name: content if rng.random() < 0.8 else damage(rng, content)}

    return change


def other_array(rng: random.Random, content: bytes) -> bytes:
    """An .npy with another header, or other bytes behind it."""
    end = content.find(b"\n") + 1
    if rng.random() < 0.4:
        return content[:end] + damage(rng, content[end:])
    if rng.random() < 0.3:
        return damage(rng, content)
    size = rng.choice((*HUGE, -1, "()", "'a'", "(" * 300))
    kind = rng.choice(("<i4", "|O", "<u1", "<f8", "<U1000000000", "|V2147483647", "<M8[s]", "i4,(9999999,9999999)f8"))
    shape = rng.choice((f"({size},)", f"({size}, {size})", "(" + "2," * 70 + ")", "()"))
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content[end:]


def damaged_safetensors(name: str) -> Callable[[random.Random, Files], Files]:
    """Tensors whose header is changed, with its length in front of it, or whose bytes are."""

    def change(rng: random.Random, files: Files) -> Files:
        content = files[name]
        if rng.random() < 0.4:
            return files | {name: damage(rng, content)}
        (size,) = struct.unpack("<Q", content[:8])
        header = damaged_text(rng, content[8 : 8 + size].rstrip())
        return files | {name: struct.pack("<Q", len(header)) + header + content[8 + size :]}

    return change


def one_of(*changes: Callable[[random.Random, Files], Files]) -> Callable[[random.Random, Files], Files]:
    return lambda rng, files: rng.choice(changes)(rng, files)


# --- Readings ---


def read_bundle(folder: Path) -> Iterable[Reading]:
    model = ModelDir(folder)
    return (
        lambda: model.tensors(),
        lambda: tf_checkpoint.verify_checksums(folder / "model-3"),
        lambda: tf_checkpoint.read_index(folder / "model-3"),
    )


def read_run(folder: Path) -> Iterable[Reading]:
    run = ModelDir(folder)
    yield lambda: run.hyperparameters()
    yield lambda: run.tensors()
    yield lambda: run.tokenizer().decode(run.tokenizer().encode(["My old cat \U0001f408 <|endoftext|>"])[0].ids)
    yield lambda: (run.checkpoint_prefix(), run.step(), run.weights_file(), run.best_step())
    yield lambda: use_mark(run)
    yield lambda: run.optimizer_state()
    yield lambda: best_report(run.metrics.reports())
    yield lambda: (run.best().step(), run.adapters())


def use_mark(run: ModelDir) -> Any:
    run_info = run.run_info()
    return (
        run_info.opening_prompt(),
        run_info.opening_prompt(run_info.draw_category(random.Random(1))),
        run_info.prompt("cats", ["a"]),
    )


def read_index(folder: Path) -> Iterable[Reading]:
    yield lambda: use_index(TitleIndex.load(folder))


def use_index(index: TitleIndex) -> Any:
    return (
        list(index),
        index.find_copy("My old cat sleeps on the sofa"),
        len(index.extended_with(["One more title of a cat"])),
    )


def read_dataset(folder: Path) -> Iterable[Reading]:
    tokenizer = ModelDir(folder).tokenizer()
    yield lambda: [
        decode_with_record_tokens(chunk, tokenizer) for chunk in read_token_arrays(folder / "titles.npz", tokenizer)
    ]


def read_huggingface(folder: Path) -> Iterable[Reading]:
    model = HuggingFaceDir(folder)
    yield lambda: model.hyperparameters()
    yield lambda: model.tokenizer().decode(model.tokenizer().encode(["My old cat"])[0].ids)
    yield lambda: model.tensors()


RUN = ("hparams.json", "encoder.json", "vocab.bpe", "redditgen.json", "checkpoint", "metrics.jsonl")
KINDS: dict[str, tuple[Callable[[random.Random, Files], Files], Callable[[Path], Iterable[Reading]]]] = {
    "tf_checkpoint": (damaged_bundle, read_bundle),
    "run": (one_of(damaged_one(*RUN), damaged_safetensors("optimizer-3.safetensors")), read_run),
    "index": (damaged_npz("training_titles.npz"), read_index),
    "dataset": (damaged_npz("titles.npz"), read_dataset),
    "huggingface": (
        one_of(damaged_one("config.json", "tokenizer.json"), damaged_safetensors("model.safetensors")),
        read_huggingface,
    ),
    "vocabulary": (damaged_one("vocab.json", "merges.txt", "added_tokens.json"), read_huggingface),
    "shards": (damaged_one("model.safetensors.index.json"), read_huggingface),
    "pickle": (damaged_one("pytorch_model.bin"), read_huggingface),
}


def main(kind: str, folder: Path, first: int, last: int) -> dict[str, Any]:
    whole = {path.name: path.read_bytes() for path in (folder / "whole").iterdir() if path.is_file()}
    mutant = folder / "mutant"
    put(mutant, whole)
    for reading in KINDS[kind][1](mutant):
        reading()  # what is imported then, and whatever a whole model takes, counts as nothing
    before = memory("VmRSS")
    limit = memory("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    came: Counter[str] = Counter()
    examples: dict[str, int] = {}
    for number in range(first, last):
        (folder / "number").write_text(str(number), encoding="utf8")
        for what in outcomes(kind, number, whole, mutant):
            came[what] += 1
            if what not in ("read", "refused"):
                examples.setdefault(what, number)
    return {"came": came, "examples": examples, "peak": memory("VmHWM") - before}


def outcomes(kind: str, number: int, whole: Files, folder: Path) -> list[str]:
    """What comes of each reading of one mutant, after which the folder is whole again."""
    change, readings = KINDS[kind]
    signal.alarm(SECONDS)  # ends this process
    changed = {
        name: file for name, file in change(random.Random(f"{kind} {number}"), whole).items() if file != whole[name]
    }
    put(folder, changed)
    found = [outcome(reading) for reading in readings(folder)]
    put(folder, {name: whole[name] for name in changed})
    signal.alarm(0)
    return found


def outcome(reading: Reading) -> str:
    try:
        reading()
    except RedditgenError as error:
        message = str(error)
        return "refused" if message.isprintable() else f"not one line: {message[:300]!r}"
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "/redditgen/" in f.filename]
        at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__name__} at {at}: {str(error)[:200]}"
    return "read"


def put(folder: Path, files: Files) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def memory(name: str) -> int:
    """Bytes, as Linux counts them for this process."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf8"))
    assert found
    return int(found[1]) << 10


if __name__ == "__main__":
    kind, folder, first, last = sys.argv[1:]
    sys.stdout.write(json.dumps(main(kind, Path(folder), int(first), int(last))))
