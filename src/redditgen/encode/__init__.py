"""encode: titles to records that a model learns from, each with some of the keywords that spaCy finds in it."""

import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any

from redditgen.encode import batches, reading
from redditgen.encode.reading import Row
from redditgen.encode.spacy_keywords import versions
from redditgen.encode.workers import encoded_by_ray, encoded_here
from redditgen.errors import InputError
from redditgen.interrupts import ended_like_ctrl_c
from redditgen.keywords import normalise
from redditgen.output import refuse_existing
from redditgen.partial import Partial, made_of, partial
from redditgen.progress import Progress
from redditgen.rows import reading as reading_text
from redditgen.settings import EncodeSettings
from redditgen.sidecar import BESIDES, made_before, write_sidecar
from redditgen.tables import table

_RAY_PAYS_FROM = 10_000  # rows; with fewer, starting ray takes longer than it saves
_NOT_IN_THE_FILE = (*BESIDES, "workers", "ray_address")  # settings that leave the bytes as they are

_log = logging.getLogger(__name__)


def encode(settings: EncodeSettings) -> dict[str, int]:
    """Write `settings.outputs` and give the counts: rows, skipped, titles, records, categories.

    What an interrupted call with the same settings and the same input wrote is gone on with.
    """
    of_spacy = versions(settings)
    files = [settings.input, *filter(None, [settings.keywords_list])]
    if settings.skip_existing and (before := _made_before(settings, files, of_spacy)):
        return dict(before["counts"])
    refuse_existing(settings.output, settings.overwrite)
    started = time.monotonic()
    only = _listed(settings.keywords_list)
    counts: Counter[str] = Counter()
    with (
        ended_like_ctrl_c(),
        table(settings.input, made_by="`redditgen fetch` makes one, or name a CSV of your own") as titles,
        partial(
            settings.outputs,
            made_of(settings, files, but=_NOT_IN_THE_FILE, **of_spacy),
            overwrite=settings.overwrite,
        ) as output,
    ):
        if not output.is_whole:
            _write(output, reading.rows(titles, settings, counts), settings, only, counts)
        counts = Counter(output.facts)
        for number, path in enumerate(settings.outputs):
            written, facts = output.path(number), {"counts": counts, "versions": of_spacy}
            write_sidecar(path, settings, inputs=files, written=written if written.exists() else path, **facts)
    of_shares = [counts[f"records_{name}"] for name in settings.shares]
    for path, records in zip(settings.outputs, [counts["records"] - sum(of_shares), *of_shares], strict=True):
        if not records:
            _log.warning("%s: is empty, since --split left no title for it", path)
    _log.info("%s: %s", settings.output, _summary(counts, time.monotonic() - started))
    return dict(counts)


def _made_before(settings: EncodeSettings, files: Sequence[Path], versions: dict[str, str]) -> dict[str, Any] | None:
    """What the sidecar says, if all outputs were made of the same."""
    found = None
    for path in reversed(settings.outputs):  # the first, which has all its name, has it last
        found = made_before(path, settings, inputs=files, but=_NOT_IN_THE_FILE, facts={"versions": versions})
        if found is None:
            return None
    return found


def _write(
    output: Partial, rows: Iterator[Row], settings: EncodeSettings, only: Collection[str] | None, counts: Counter[str]
) -> None:
    head = list(islice(rows, _RAY_PAYS_FROM))
    if not head:
        raise InputError(f"{settings.input}: has a header, and no row with a text in '{settings.text_field}'")
    count = _workers(settings, is_small=len(head) < _RAY_PAYS_FROM)
    _log.debug("%s processes find keywords", count or "as many as the cluster has room for")
    names = ["", *settings.shares]
    counts.update({name: count for name, count in output.facts.items() if name.startswith("records")})
    if output.steps:
        _log.info("%s: goes on behind %d records of an interrupted run", settings.output, counts["records"])
    jobs = batches.jobs(itertools.chain(head, rows), done=output.steps)
    is_here = count == 1 and not settings.ray_address
    lines_of = encoded_here(jobs, settings, only) if is_here else encoded_by_ray(jobs, settings, only, count)
    progress = Progress("encode", unit="titles", done=counts["records"] // settings.copies)
    with closing(lines_of) as encoded, progress:
        for window, of_window in groupby(encoded, key=itemgetter(0)):
            lines = []
            for _, of_batch in of_window:
                lines += of_batch
                progress.update(len(of_batch) // settings.copies)
            Random(f"{settings.seed} window {window}").shuffle(lines)
            counts["records"] += len(lines)
            counts.update(f"records_{names[part]}" for part, _ in lines if part)
            output.step(lines, counts)
    output.finish(counts)


def _summary(counts: Counter[str], seconds: float) -> str:
    return (
        f"{counts['records']} records of {counts['titles']} titles in {counts['categories']} categories, "
        f"{counts['skipped']} rows without a title skipped, {seconds:.0f} s"
    )


def _listed(path: Path | None) -> frozenset[str] | None:
    """The keywords of a file, a line each, in lower case, as they are found in titles."""
    if path is None:
        return None
    with reading_text(path, made_by="--keywords-list needs a file with a keyword a line") as file:
        listed = frozenset(filter(None, (normalise(line).casefold() for line in file)))
    if not listed:
        raise InputError(f"{path}: holds no keyword; a keyword a line is needed")
    return listed


def _workers(settings: EncodeSettings, *, is_small: bool) -> int | None:
    """How many processes; None for as many as the cluster has room for. Several, and all of a cluster's, are ray's."""
    if settings.workers != "auto":
        return int(settings.workers)
    if settings.ray_address:
        return None
    return 1 if is_small or settings.keywords_field else os.cpu_count() or 1
