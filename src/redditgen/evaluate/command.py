"""`redditgen evaluate`: measures a run on held-out titles, and on titles that it generates for their prompts.

The figures are written to evaluation.json, and with plots and sampled titles to evaluation.html. The JSON file is
written last and is its own sidecar; it holds the hash of the page.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redditgen import __version__
from redditgen.errors import InputError, UsageError
from redditgen.evaluate.held_out_figures import held_out_figures
from redditgen.evaluate.page import TITLES_SHOWN, render_page
from redditgen.evaluate.samples import Sample, draw_samples
from redditgen.evaluate.statistics import Figure
from redditgen.evaluate.table import format_text_table
from redditgen.evaluate.title_figures import TitleChecks, all_title_figures
from redditgen.files.atomic import atomic_write, file_sha256, refuse_existing, refuse_unwritable
from redditgen.files.locks import locked_output
from redditgen.files.sidecar import IGNORED_SETTINGS, find_up_to_date
from redditgen.finetune.dataset.load import read_held_out_records
from redditgen.finetune.dataset.record_files import find_files
from redditgen.gpt2.find import find_run
from redditgen.gpt2.model_dir import ModelDir
from redditgen.gpt2.run_info import NO_RECORDS
from redditgen.settings import EvaluateSettings
from redditgen.titles.novelty import INDEX_FILE as INDEX
from redditgen.titles.record import Record

if TYPE_CHECKING:
    import pandas as pd

JSON_FILE, HTML_FILE = "evaluation.json", "evaluation.html"

_PAGE = "page"  # key of the page's hash, which shows that a kill between the two files left a page of other figures
_MAX_DEVIATION = 0.02  # relative; the precisions of finetune differ by less

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of a run at a step, with the samples and the files that they were measured on."""

    settings: EvaluateSettings
    step: int
    figures: tuple[Figure, ...]
    samples: tuple[Sample, ...]
    held_out: tuple[str, ...]
    """The held-out titles, each once."""
    inputs: dict[str, str]
    """The SHA-256 of each input file, by its path."""

    @property
    def titles(self) -> list[Sample]:
        """The samples that are whole titles; their prompts are in random order."""
        return [sample for sample in self.samples if sample.fault is None]

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of texts, of whole titles, of texts with each fault, and of held-out titles."""
        faults = Counter(sample.fault for sample in self.samples if sample.fault)
        return {"texts": len(self.samples), "titles": len(self.titles), **faults, "held_out_titles": len(self.held_out)}

    def frame(self) -> "pd.DataFrame":
        """Return the figures as a table, one figure a row."""
        import pandas as pd

        return pd.DataFrame([asdict(figure) for figure in self.figures]).astype(
            {"keywords": "Int64", "low": "float64", "high": "float64"}
        )

    def content(self) -> dict[str, Any]:
        """Return the object that evaluation.json holds."""
        shown = [{**asdict(sample), "synthetic": True} for sample in self.titles[:TITLES_SHOWN]]
        for sample in shown:
            del sample["fault"]
        return {
            "redditgen": __version__,
            "command": "evaluate",
            "run": self.settings.run,
            "step": self.step,
            "settings": asdict(self.settings),
            "inputs": self.inputs,
            "counts": self.counts,
            "figures": [asdict(figure) for figure in self.figures],
            "titles": shown,
        }


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Measure the run that the settings name.

    Raises RedditgenError where the run, its dataset or a file of the settings is missing or unusable, and where no
    sampled text is a whole title.
    """
    run = find_run(settings.run, settings.checkpoint_dir, settings.step)
    records = _held_out_records(settings, run)
    real = tuple(dict.fromkeys(record.title or "" for record in records))
    checks = TitleChecks.load(settings, run)
    samples = draw_samples(settings.generate_settings, run, records, settings.n, settings.sample_seed)
    _require_titles(settings, samples)
    seed = settings.sample_seed
    held_out = held_out_figures(run, records, seed)
    _warn_of_another_split(settings, run, held_out[0])
    return Evaluation(
        settings=settings,
        step=run.step(),
        figures=(*held_out, *all_title_figures(samples, real, checks, seed)),
        samples=tuple(samples),
        held_out=real,
        inputs={str(path): file_sha256(path) for path in _inputs(settings, run)},
    )


def write_evaluation(settings: EvaluateSettings) -> Evaluation:
    """Evaluate the run, and write evaluation.html and evaluation.json to the settings' folder.

    Raises OutputExists where evaluation.json exists and may not be replaced, UsageError where the folder is a file, and
    the errors of `evaluate`.
    """
    out = settings.output
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out: {out} is a file; name a folder")
    refuse_unwritable(out / JSON_FILE)
    with locked_output(out / JSON_FILE):
        # The JSON file is written last: without it, a page is what a killed process left.
        refuse_existing(out / JSON_FILE, settings.overwrite)
        evaluation = evaluate(settings)
        page = render_page(
            settings.run,
            evaluation.step,
            evaluation.figures,
            evaluation.counts,
            evaluation.titles,
            evaluation.held_out,
        )
        # Half a surrogate pair can be written as an escape in JSON, but not in a page.
        _write(out / HTML_FILE, page, "replace")
        content = evaluation.content() | {_PAGE: file_sha256(out / HTML_FILE)}
        _write(
            out / JSON_FILE, json.dumps(content, indent=2, default=str, ensure_ascii=False) + "\n", "backslashreplace"
        )
    return evaluation


def _write(path: Path, text: str, errors: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf8", errors=errors)
    _log.info("wrote %s", path)


def is_up_to_date(settings: EvaluateSettings) -> bool:
    """Return whether both files exist and were made from the same inputs with the same settings."""
    out, run = settings.output, find_run(settings.run, settings.checkpoint_dir, settings.step)
    path, inputs = out / JSON_FILE, _inputs(settings, run)
    if not (out / HTML_FILE).exists():
        return False
    facts = {"step": run.step(), _PAGE: file_sha256(out / HTML_FILE)}
    return bool(find_up_to_date(path, settings, inputs=inputs, ignoring=IGNORED_SETTINGS, facts=facts, sidecar=path))


def format_table(made: Evaluation) -> str:
    """Return the figures as a table for a terminal."""
    return format_text_table(made.figures)


def _held_out_records(settings: EvaluateSettings, run: ModelDir) -> list[Record]:
    """Return the held-out records that have a title.

    Raises UsageError for a run trained on plain text, and InputError where no such record is held out.
    """
    run_info = run.run_info()
    if run_info.record_tokens == NO_RECORDS:
        raise UsageError(f"--run: run {settings.run} learned plain text, which has no titles to measure")
    records = read_held_out_records(settings.finetune_settings, run_info, run.tokenizer())
    if with_title := [record for record in records if (record.title or "").strip()]:
        return with_title
    if settings.val:
        raise InputError(f"{settings.val}: holds no title to measure on; give finetune's --val")
    raise InputError(
        f"{settings.against}: no title in it is held out by --seed {settings.seed} --val-fraction "
        f"{settings.val_fraction:g}; raise --val-fraction for finetune and here, or give --val"
    )


def _require_titles(settings: EvaluateSettings, samples: Sequence[Sample]) -> None:
    """Raise InputError where no sample is a whole title."""
    faults = Counter(sample.fault for sample in samples)
    if not faults[None]:
        why = ", ".join(f"{number} {fault}" for fault, number in faults.items())
        raise InputError(
            f"run {settings.run}: none of {len(samples)} texts is a whole title ({why}); finetune for longer, "
            "or raise --length"
        )


def _warn_of_another_split(settings: EvaluateSettings, run: ModelDir, bits: Figure) -> None:
    """Warn where finetune measured other bits per character at this step, so that it held out other titles.

    Titles that the run was trained on would make it look better than it is.
    """
    reported = [report.val_bits_per_char for report in run.metrics.reports() if report.step == run.step()]
    [last] = [value for value in reported if value is not None][-1:] or [bits.value]
    if abs(bits.value / last - 1) > _MAX_DEVIATION:
        _log.warning(
            "run %s: finetune measured %.3f bits per character at this step, and here it is %.3f, so other titles were "
            "held out: give its dataset, --seed, --val-fraction and --val",
            settings.run, last, bits.value,
        )  # fmt: skip


def _inputs(settings: EvaluateSettings, run: ModelDir) -> list[Path]:
    """Return the files that the figures depend on."""
    index = run.path / INDEX
    others = filter(None, (settings.words, run.weights_file(), index if index.exists() else None))
    return [*find_files(settings.finetune_settings.dataset), *others]
