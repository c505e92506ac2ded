"""Generated titles, and their form in files and on a terminal."""

from dataclasses import dataclass
from pathlib import Path

from redditgen.files.rows import Row, format_rows
from redditgen.generate.rounds import DrawnTitle
from redditgen.settings import GenerateSettings

TITLE_COLUMNS = ("title", "category", "keywords", "prompt", "run", "step", "engine", "seed", "synthetic")
LABEL = "[synthetic] "


@dataclass(frozen=True, kw_only=True)
class Title:
    """A generated title and its origin. The fields are the keys and columns of generated files."""

    title: str
    category: str | None
    keywords: str | None
    prompt: str
    run: str
    step: int
    engine: str
    seed: int
    synthetic: bool = True


def make_title(drawn: DrawnTitle, settings: GenerateSettings, *, step: int, seed: int) -> Title:
    """Add the run, step, engine and seed to a title that was drawn."""
    return Title(
        title=drawn.record.title or "",
        category=drawn.record.category,
        keywords=drawn.record.keywords,
        prompt=drawn.prompt,
        run=settings.run,
        step=step,
        engine=settings.engine,
        seed=seed,
    )


def format_title(title: Title, settings: GenerateSettings) -> str:
    """Return a title as text, with LABEL before it where the settings ask for labels."""
    return LABEL + title.title if settings.label else title.title


def columns_for_file(out: Path) -> tuple[str, ...]:
    """Return the columns of a file, by its suffix: only the title in a .txt."""
    return ("title",) if out.suffix.lower() == ".txt" else TITLE_COLUMNS


def format_titles(titles: list[Title], out: Path, settings: GenerateSettings, *, is_first: bool) -> str:
    """Return titles as text in the format of `out`; the first ones (`is_first`) follow the header of a CSV."""
    is_text = out.suffix.lower() == ".txt"
    rows: list[Row] = [{"title": format_title(title, settings)} if is_text else vars(title) for title in titles]
    return format_rows(rows, out, columns_for_file(out), delimiter=settings.sample_delim, is_first=is_first)
