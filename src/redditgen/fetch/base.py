"""What every source of posts can do: BigQuery, and files read by DuckDB."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self


class Posts(Protocol):
    """A source of posts, in a `with` block."""

    @property
    def table(self) -> str:
        """What sql/titles.sql is to read."""

    @property
    def columns(self) -> Collection[str]:
        """The columns that it has; the others are NULL."""

    @property
    def inputs(self) -> Sequence[Path]:
        """Files to name, with their hashes, in the sidecar."""

    @property
    def counts_rules(self) -> bool:
        """Whether one more query, for what each rule leaves out, costs nothing."""

    def run(self, sql: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """The rows of one SELECT in BigQuery Standard SQL."""

    def facts(self) -> dict[str, Any]:
        """What a sidecar tells of the source."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
