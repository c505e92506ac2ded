"""The interface of a source of posts, which BigQueryPosts and LocalPosts (files read by DuckDB) implement."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self


class Posts(Protocol):
    """A source of posts, to be used in a `with` block."""

    @property
    def table(self) -> str:
        """The name of the table that sql/titles.sql reads, as PROJECT.DATASET.TABLE; it may end in a wildcard."""

    @property
    def columns(self) -> Collection[str]:
        """The columns that the posts have; the query takes all others as NULL."""

    @property
    def inputs(self) -> Sequence[Path]:
        """The files that the sidecar lists with their hashes."""

    @property
    def counts_rules(self) -> bool:
        """Whether a further query, which counts the posts that each rule leaves out, is free."""

    def run(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of one SELECT in BigQuery Standard SQL; `parameters` are the values of its @names."""

    def facts(self) -> dict[str, Any]:
        """Return what the sidecar records about the source, as values that JSON can hold."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
