"""`redditgen encode`: turns titles into records to train on, each with some of the keywords that spaCy finds in it.

Rows are cut into groups and these into batches, which one or more processes encode. The records of each group are
shuffled and written as one step, so an interrupted command continues after the last whole group.
"""

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
from redditgen.files.text import open_text
from redditgen.runtime.progress import Progress
from redditgen.runtime.signals import signals_raise_keyboard_interrupt
from redditgen.settings import EncodeSettings
from redditgen.titles.keywords import normalise_keyword
from redditgen.titles.spacy_keywords import model_versions

_MIN_ROWS_FOR_RAY = 10_000  # with fewer, starting ray takes longer than it saves
_SETTINGS_WITHOUT_EFFECT = (*IGNORED_SETTINGS, "workers", "ray_address")  # on the bytes of the output

_log = logging.getLogger(__name__)


def encode(settings: EncodeSettings) -> dict[str, int]:
    """Write `settings.outputs` with sidecars, and return the counts: rows, skipped, titles, records, categories.

    Continues an interrupted call with the same settings and the same input. Raises OutputExists where an output exists
    and may not be replaced, and InputError where the input has no column or no text that the settings name.
    """
    versions = {} if settings.keywords_field else model_versions(settings.spacy_model)
    files = [settings.input, *filter(None, [settings.keywords_list])]
    if settings.skip_existing and (sidecar := _find_up_to_date(settings, files, versions)):
        return dict(sidecar["counts"])
    refuse_existing(settings.output, settings.overwrite)
    started = time.monotonic()
    allowed = _read_keywords_list(settings.keywords_list)
    counts: Counter[str] = Counter()
    with (
        signals_raise_keyboard_interrupt(),
        open_table(settings.input, made_by="`redditgen fetch` makes one, or name a CSV of your own") as titles,
        resumable_output(
            settings.outputs,
            fingerprint(settings, files, ignoring=_SETTINGS_WITHOUT_EFFECT, **versions),
            overwrite=settings.overwrite,
        ) as output,
    ):
        if not output.is_complete:
            _write(output, title_rows.read_rows(titles, settings, counts), settings, allowed, counts)
        counts = Counter(output.facts)
        for number, path in enumerate(settings.outputs):
            written, facts = output.path(number), {"counts": counts, "versions": versions}
            write_sidecar(path, settings, inputs=files, written=written if written.exists() else path, **facts)
    share_counts = [counts[f"records_{name}"] for name in settings.shares]
    for path, records in zip(settings.outputs, [counts["records"] - sum(share_counts), *share_counts], strict=True):
        if not records:
            _log.warning("%s: is empty, since --split left no title for it", path)
    _log.info("%s: %s", settings.output, _summary(counts, time.monotonic() - started))
    return dict(counts)


def _find_up_to_date(
    settings: EncodeSettings, files: Sequence[Path], versions: dict[str, str]
) -> dict[str, Any] | None:
    """Return the first output's sidecar where all outputs are up to date, else None."""
    sidecar = None
    for path in reversed(settings.outputs):  # the first output gets its name last
        sidecar = find_up_to_date(
            path, settings, inputs=files, ignoring=_SETTINGS_WITHOUT_EFFECT, facts={"versions": versions}
        )
        if sidecar is None:
            return None
    return sidecar


def _write(
    output: ResumableOutput,
    rows: Iterator[TitleRow],
    settings: EncodeSettings,
    allowed: Collection[str] | None,
    counts: Counter[str],
) -> None:
    first_rows = list(islice(rows, _MIN_ROWS_FOR_RAY))
    if not first_rows:
        raise InputError(f"{settings.input}: has a header, and no row with a text in '{settings.text_field}'")
    workers = _workers(settings, is_small=len(first_rows) < _MIN_ROWS_FOR_RAY)
    _log.debug("%s processes find keywords", workers or "as many as the cluster has room for")
    part_names = ["", *settings.shares]
    counts.update({name: count for name, count in output.facts.items() if name.startswith("records")})
    if output.steps:
        _log.info("%s: goes on behind %d records of an interrupted run", settings.output, counts["records"])
    jobs = batches.cut_into_batches(itertools.chain(first_rows, rows), done=output.steps)
    if workers == 1 and not settings.ray_address:
        results = encode_in_process(jobs, settings, allowed)
    else:
        results = encode_with_ray(jobs, settings, allowed, workers)
    progress = Progress("encode", unit="titles", done=counts["records"] // settings.records_per_title)
    with closing(results), progress:
        for group, batch_results in groupby(results, key=itemgetter(0)):
            lines = []
            for _, batch_lines in batch_results:
                lines += batch_lines
                progress.update(len(batch_lines) // settings.records_per_title)
            # "window" is what a group was called first; another word would shuffle differently for the same seed.
            Random(f"{settings.seed} window {group}").shuffle(lines)
            counts["records"] += len(lines)
            counts.update(f"records_{part_names[part]}" for part, _ in lines if part)
            output.write_step(lines, counts)
    output.finish(counts)


def _summary(counts: Counter[str], seconds: float) -> str:
    return (
        f"{counts['records']} records of {counts['titles']} titles in {counts['categories']} categories, "
        f"{counts['skipped']} rows without a title skipped, {seconds:.0f} s"
    )


def _read_keywords_list(path: Path | None) -> frozenset[str] | None:
    """Return the keywords in a file, one a line, normalised as in titles and in lower case; None without a file."""
    if path is None:
        return None
    with open_text(path, made_by="--keywords-list needs a file with a keyword a line") as file:
        keywords = frozenset(filter(None, (normalise_keyword(line).casefold() for line in file)))
    if not keywords:
        raise InputError(f"{path}: holds no keyword; a keyword a line is needed")
    return keywords


def _workers(settings: EncodeSettings, *, is_small: bool) -> int | None:
    """Return the number of processes; None stands for as many as the ray cluster has room for.

    Ray runs them where they are several, or where the settings name a cluster.
    """
    if settings.workers != "auto":
        return int(settings.workers)
    if settings.ray_address:
        return None
    return 1 if is_small or settings.keywords_field else os.cpu_count() or 1
