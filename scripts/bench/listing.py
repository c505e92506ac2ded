"""The report's listings, to run beside ours. Nothing of them stands in the project: they come out of the report's text.

Its encoder is rebuilt by tools/reference_encoder.py, which lies beside the report; or it is given as a file.
"""

import re
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from redditgen.titles.record import END_TOKEN, START_TOKEN
from redditgen.titles.spacy_keywords import find_installed_model

LENGTH_MAX = 20
MORE_THAN_ANY = 1_000_000  # keywords; a draw of up to as many as that holds the whole set but once in 100,000
DRAWS = 3  # and so three of them do

# What the PDF, from which the report's text comes, did to the lines of the decoder.
_REPAIRS = [
    ("```\n", ""),
    (r"single\nsection", "single section"),
    (r"\n {3}with open", "\n    with open"),
    (r"\nwith open", "\n    with open"),
    (r"\n for doc", "\n        for doc"),
    (r"\n f\.write", "\n            f.write"),
]


def encoder_file(reference: Path, folder: Path) -> Path:
    """The listing's keyword_encode.py: the reference, or rebuilt into `folder` if that is the report."""
    if reference.suffix == ".py":
        return reference
    out = folder / "keyword_encode.py"
    subprocess.run([sys.executable, reference.parent / "tools/reference_encoder.py", reference, out], check=True)
    return out


def decoder_file(report: Path, folder: Path) -> Path:
    """The listing's keyword_decode.py, the last thing in the report, written to `folder`."""
    text = report.read_text(encoding="utf8").replace("\r\n", "\n")
    code = text[text.rindex("\nkeyword_decode.py\n") :].split("\n", 2)[2]
    for wrong, right in _REPAIRS:
        code = re.sub(wrong, right, code)
    out = folder / "keyword_decode.py"
    out.write_text(code, encoding="utf8")
    return out


def defined(listing: Path) -> dict[str, Any]:
    """What a listing defines; ray's actors in it are plain classes."""
    modules: dict[str, Any] = sys.modules
    before = modules.get("ray")
    modules["ray"] = SimpleNamespace(remote=lambda **_: lambda actor: actor)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the listing's "\W" is no escape
            return runpy.run_path(str(listing))
    finally:
        del modules["ray"]
        if before:
            modules["ray"] = before


def encoder(listing: Path, **changes: Any) -> Any:
    """The listing's Encoder; it writes records of keywords alone, found in `title`, unless the changes say more."""
    names = defined(listing)
    usual = {
        "model": find_installed_model("en_core_web_sm"),
        "category_field": None,
        "keywords_field": None,
        "title_field": None,
        "body_field": None,
        "keyword_gen": "title",
        "keyword_sep": ",",
        "repeat": 3,
        "max_keywords": 3,
        "keyword_length_max": LENGTH_MAX,
        "start_token": START_TOKEN,
        "end_token": END_TOKEN,
        "DELIMS": names["DELIMS"],
        "PRONOUNS": names["PRONOUNS"],
    }
    return names["Encoder"](**(usual | changes))


def finder(listing: Path) -> Callable[[str], set[str]]:
    """A function to all keywords that the listing draws from for a title."""
    made = encoder(listing, start_token="", end_token="", repeat=DRAWS, max_keywords=MORE_THAN_ANY)

    def find(title: str) -> set[str]:
        records = made.generate_encoded_text({"title": title})
        return {keyword for record in records for keyword in record.removesuffix("\n")[2:].split(" ")} - {""}

    return find
