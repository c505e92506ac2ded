r"""The record format: the only place that knows the delimiters and the tokens.

A record stands on one line and holds its sections in a fixed order, each behind a two-character mark:

    <|startoftext|>~`category~^keyword keyword~@title~}body<|endoftext|>

Ordinary text stands as it is, so the records are those of the report's `keyword_encode.py`. What would read as markup
inside a field is broken up by a backslash, and a line break is written as a letter:

    ~@  ->  ~\@        <|endoftext|>  ->  <\|endoftext|>        newline  ->  \n        carriage return  ->  \r

A record without marks, `<|startoftext|>title<|endoftext|>`, as gpt-2-simple makes it of a one-column CSV, is a title
alone.

A backslash is doubled only where it would read as one of these escapes, so `¯\_(ツ)_/¯` stays as it is. An escaped
field holds no mark and no token: a plain search for the marks finds exactly the sections, also with the report's own
decoder.
"""

import itertools
import re
from dataclasses import dataclass
from typing import Any

START_TOKEN = "<|startoftext|>"
END_TOKEN = "<|endoftext|>"
DELIMITERS = {"category": "~`", "keywords": "~^", "title": "~@", "body": "~}"}
SECTIONS = tuple(DELIMITERS)

_SECTION_OF = {mark: section for section, mark in DELIMITERS.items()}
_IN_ORDER = {names for count in range(1, 5) for names in itertools.combinations(SECTIONS, count)}
_MARK = re.compile(r"(~[`^@}])")

_TO_ESCAPE = re.compile(r"[~<\\\n\r]")  # ordinary text holds none of them
# A run of backslashes matters only where a mark, a token or the letter of a line break comes with it. `(?<!\\)\\++`
# takes the run as a whole: tried from each of its backslashes, a long one would take hours.
_IN_MARK = re.compile(r"~(\\*)(?=[`^@}])")
_IN_TOKEN = re.compile(r"<(\\*)(?=\|(?:startoftext|endoftext)\|>)")
_LINE_BREAK_OR_ALIKE = re.compile(r"(?<!\\)\\++[nr\n\r]|[\n\r]")
_ESCAPED_LINE_BREAK = re.compile(r"((?<!\\)\\++)([nr])")
# What a cut leaves of a mark, a token or an escape.
_BEGUN = "|".join(
    sorted({re.escape(token[1:end]) for token in (START_TOKEN, END_TOKEN) for end in range(1, len(token))})
)
_HALF_AT_END = re.compile(rf"(?:~\\*|<\\*(?:{_BEGUN})|(?<!\\)\\++)\Z")
_LETTERS = {"\n": "n", "\r": "r"}
_LINE_BREAKS = {"n": "\n", "r": "\r"}


@dataclass(frozen=True)
class Record:
    """One record's fields; a section that is not in the record is None, one that is empty is ''.

    A record that is not `marked` has a title, not empty, and nothing else.
    """

    category: str | None = None
    keywords: str | None = None
    title: str | None = None
    body: str | None = None
    has_sections: bool = True


def escape(text: str) -> str:
    """Break up whatever in a field would read as markup; ordinary text comes back unchanged."""
    if not _TO_ESCAPE.search(text):
        return text
    text = _LINE_BREAK_OR_ALIKE.sub(_escaped_line_break, text)
    text = _IN_MARK.sub(lambda m: "~" + m[1] + "\\", text)
    return _IN_TOKEN.sub(lambda m: "<" + m[1] + "\\", text)


def unescape(text: str) -> str:
    """Undo `escape`; text that `escape` cannot have made is read as leniently as it can be."""
    if "\\" not in text:
        return text
    text = _IN_TOKEN.sub(lambda m: "<" + m[1][:-1], text)
    text = _IN_MARK.sub(lambda m: "~" + m[1][:-1], text)
    return _ESCAPED_LINE_BREAK.sub(_line_break, text)


def _escaped_line_break(match: re.Match[str]) -> str:
    backslashes, char = match[0][:-1], match[0][-1]
    escape_mark = "\\" if char in _LETTERS else ""
    return backslashes * 2 + escape_mark + _LETTERS.get(char, char)


def _line_break(match: re.Match[str]) -> str:
    backslashes, letter = match.groups()
    is_escape = len(backslashes) % 2 == 1
    return "\\" * (len(backslashes) // 2) + (_LINE_BREAKS[letter] if is_escape else letter)


def format_sections(record: Record) -> str:
    """The marks and escaped fields of a record, without its tokens."""
    if not record.has_sections:
        return escape(record.title or "")
    fields = ((mark, getattr(record, section)) for section, mark in DELIMITERS.items())
    return "".join(mark + escape(field) for mark, field in fields if field is not None)


def build(record: Record) -> str:
    """One line of an encoded file, without its line break."""
    return START_TOKEN + format_sections(record) + END_TOKEN


def build_prompt(record: Record, continue_with: str) -> str:
    """The start of a record up to and with the mark of the section that the model shall write next."""
    return START_TOKEN + format_sections(record) + DELIMITERS.get(continue_with, "")


def parse(text: str) -> Record | None:
    """Read one whole record back; None if it is none (unfinished, no section, or a section twice or out of order)."""
    if not (text.startswith(START_TOKEN) and text.endswith(END_TOKEN)):
        return None
    return parse_sections(text[len(START_TOKEN) : -len(END_TOKEN)])


def parse_sections(text: str) -> Record | None:
    """Read what stands between the tokens of a record; None as for `parse`."""
    before, *pieces = _MARK.split(text)
    if not pieces:
        return Record(title=unescape(before), has_sections=False) if before else None
    names = tuple(_SECTION_OF[mark] for mark in pieces[::2])
    if before or names not in _IN_ORDER:
        return None
    fields: dict[str, Any] = {name: unescape(piece) for name, piece in zip(names, pieces[1::2], strict=True)}
    return Record(**fields)


def parse_unfinished(text: str) -> Record | None:
    """Read what stands behind the start token of a record that is cut: its sections so far, the last as far as it goes.

    Half a mark, token or escape at the end is left out. None if there is no section, or as for `parse`.
    """
    return parse_sections(_HALF_AT_END.sub("", text))


def has_markup(text: str) -> bool:
    """Whether a text holds a mark or a token."""
    return bool(_MARK.search(text)) or START_TOKEN in text or END_TOKEN in text
