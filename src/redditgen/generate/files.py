"""Titles to a file, window by window, so that what a kill cut short is gone on with."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from redditgen.errors import UsageError
from redditgen.generate.drawing import TITLES, State
from redditgen.generate.filters import Seen, key_of
from redditgen.generate.prompts import Asks, asked
from redditgen.generate.report import counts_of, report
from redditgen.generate.stage import Stage, seed_of
from redditgen.generate.titles import Title, columns, file_text
from redditgen.interrupts import ended_like_ctrl_c
from redditgen.output import refuse_existing
from redditgen.partial import Partial, made_of, partial
from redditgen.progress import Progress
from redditgen.rows import check_rows_file
from redditgen.settings import GenerateSettings
from redditgen.sidecar import BESIDES, made_before, write_sidecar

# Settings that leave the bytes as they are.
_NOT_IN_THE_FILE = (*BESIDES, "resume", "tf1_python", "ray_address")

_log = logging.getLogger(__name__)


def write(settings: GenerateSettings) -> int:
    """Write titles to `settings.out`, with a sidecar; gives their number.

    What an interrupted call with the same settings wrote is gone on with, also if its seed was a new one.
    """
    out = settings.out
    if out is None:
        raise UsageError("--out: a file to write is needed here")
    check_rows_file(out, columns(out))
    stage = Stage(settings)
    if settings.skip_existing and (before := _made_before(out, stage)):
        return int(before["counts"][TITLES])
    refuse_existing(out, settings.overwrite)
    asks = asked(settings)
    total = stage.check(asks)
    made = made_of(settings, stage.inputs, but=_NOT_IN_THE_FILE, **stage.facts)
    with ended_like_ctrl_c(), partial([out], made, overwrite=settings.overwrite, asides=1) as output:
        writing = _Writing(output, stage, out)
        if not output.is_whole:
            writing.write(asks, total)
            report(settings, total, writing.state.counts)
            output.finish(writing.facts)
        counts = counts_of(writing.state.counts)
        made_with = replace(settings, seed=writing.seed)
        facts = {"counts": counts, **stage.facts, "synthetic": True}
        write_sidecar(out, made_with, inputs=stage.inputs, written=output.path(0), **facts)
    _log.info("%s: %d titles", out, counts[TITLES])
    return counts[TITLES]


def _made_before(out: Path, stage: Stage) -> dict[str, Any] | None:
    """What the sidecar says, if the output was made of the same; where no seed is asked for, by any."""
    but = (*_NOT_IN_THE_FILE, *(("seed",) if stage.settings.seed is None else ()))
    return made_before(out, stage.settings, inputs=stage.inputs, but=but, facts=stage.facts)


class _Writing:
    """The file of titles, and one aside with what tells them from others: a key a line."""

    def __init__(self, output: Partial, stage: Stage, out: Path) -> None:
        self._output, self._stage, self._out = output, stage, out
        facts = dict(output.facts)
        self.seed = facts.pop("seed") if facts else seed_of(stage.settings)
        self.state = State(**facts | {"counts": Counter(facts.get("counts", ()))})

    @property
    def facts(self) -> dict[str, Any]:
        return {**vars(self.state), "seed": self.seed}

    def write(self, asks: Asks, total: int) -> None:
        """Draw and write the windows that are not there yet."""
        output, stage, done = self._output, self._stage, self.state.counts[TITLES]
        if output.steps:
            _log.info("%s: goes on behind %d titles of an interrupted run", self._out, done)
        seen = Seen(output.read(1).split()) if stage.is_unique else None
        drawing = stage.drawing(total, self.seed, seen, self.state)
        bar = Progress(str(self._out), unit="titles", total=total, done=done)
        with stage.writing() as write, bar as progress:
            for number, window in enumerate(stage.windows(asks)):
                if self.state.is_over:
                    break
                if number >= output.steps:
                    self._add(list(_counted(stage.made(drawing, write, number, window), progress)))

    def _add(self, made: list[Title]) -> None:
        text = file_text(made, self._out, self._stage.settings, is_first=not self._output.steps)
        keys = [f"{key_of(title.title)}\n" for title in made] if self._stage.is_unique else []
        self._output.step([(0, text), (1, "".join(keys))], self.facts)


def _counted(made: Iterator[Title], progress: Progress) -> Iterator[Title]:
    for title in made:
        progress.update(1)
        yield title
