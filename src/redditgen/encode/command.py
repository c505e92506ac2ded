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

from redditgen.encode import batches, title_rows
from redditgen.encode.title_rows import TitleRow
from redditgen.encode.workers import encode_in_process, encode_with_ray
from redditgen.errors import InputError
from redditgen.files.atomic import refuse_existing
from redditgen.files.resume import ResumableOutput, fingerprint, resumable_output
from redditgen.files.sidecar import IGNORED_SETTINGS, find_up_to_date, write_sidecar
from redditgen.files.tables import open_table
from redditgen.files.text import open_text as reading_text
from redditgen.runtime.progress import Progress
from redditgen.runtime.signals import signals_raise_keyboard_interrupt
from redditgen.settings import EncodeSettings
from redditgen.titles.keywords import normalise_keyword
from redditgen.titles.spacy_keywords import model_versions

_RAY_PAYS_FROM = 10_000  # rows; with fewer, starting ray takes longer than it saves
_NOT_IN_THE_FILE = (*IGNORED_SETTINGS, "workers", "ray_address")  # settings that leave the bytes as they are

_log = logging.getLogger(__name__)


def encode(settings: EncodeSettings) -> dict[str, int]:
    """Write `settings.outputs` and give the counts: rows, skipped, titles, records, categories.

    What an interrupted call with the same settings and the same input wrote is gone on with.
    """
    versions = {} if settings.keywords_field else model_versions(settings.spacy_model)
    files = [settings.input, *filter(None, [settings.keywords_list])]
    if settings.skip_existing and (before := _made_before(settings, files, versions)):
        return dict(before["counts"])
    refuse_existing(settings.output, settings.overwrite)
    started = time.monotonic()
    only = _listed(settings.keywords_list)
    counts: Counter[str] = Counter()
    with (
        signals_raise_keyboard_interrupt(),
        open_table(settings.input, made_by="`redditgen fetch` makes one, or name a CSV of your own") as titles,
        resumable_output(
            settings.outputs,
            fingerprint(settings, files, ignoring=_NOT_IN_THE_FILE, **versions),
            overwrite=settings.overwrite,
        ) as output,
    ):
        if not output.is_complete:
            _write(output, title_rows.read_rows(titles, settings, counts), settings, only, counts)
        counts = Counter(output.facts)
        for number, path in enumerate(settings.outputs):
            written, facts = output.path(number), {"counts": counts, "versions": versions}
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
        found = find_up_to_date(path, settings, inputs=files, ignoring=_NOT_IN_THE_FILE, facts={"versions": versions})
        if found is None:
            return None
    return found


def _write(
    output: ResumableOutput,
    rows: Iterator[TitleRow],
    settings: EncodeSettings,
    only: Collection[str] | None,
    counts: Counter[str],
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
    jobs = batches.cut_into_batches(itertools.chain(head, rows), done=output.steps)
    is_here = count == 1 and not settings.ray_address
    lines_of = encode_in_process(jobs, settings, only) if is_here else encode_with_ray(jobs, settings, only, count)
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
            output.write_step(lines, counts)
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
        listed = frozenset(filter(None, (normalise_keyword(line).casefold() for line in file)))
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
