"""Jobs encoded in this process or by several of ray's, in the order of the jobs."""

from collections.abc import Collection, Generator, Iterable
from contextlib import closing

from redditgen import __version__
from redditgen.encode.batches import Job
from redditgen.encode.encoder import Encoder, Line
from redditgen.encode.spacy_keywords import versions
from redditgen.ray_cluster import connected
from redditgen.ray_pool import Pool, Words, Worker
from redditgen.settings import EncodeSettings

_AT_HAND = 2  # jobs of a worker: it has its next one while this process is busy

Encoded = tuple[int, list[Line]]


def _told(job: Job) -> str:
    longest = max(len(row.source) for row in job.rows)
    return f"a batch of {len(job.rows)} texts, the longest of {longest} characters,"


_WORDS = Words(
    otherwise="--workers 1",
    awaited="a CPU of the ray cluster that others leave free, and for spaCy to load there",
    job=_told,
    if_it_kills="fewer --workers leave each more memory",
)


def encoded_here(jobs: Iterable[Job], settings: EncodeSettings, only: Collection[str] | None) -> Generator[Encoded]:
    yield from map(Encoder(settings, only).encode, jobs)


def encoded_by_ray(
    jobs: Iterable[Job], settings: EncodeSettings, only: Collection[str] | None, workers: int | None
) -> Generator[Encoded]:
    """The same by `workers` of ray's actors, or as many as the cluster has CPUs; close it to have them end."""
    with connected(settings.ray_address, workers, otherwise=_WORDS.otherwise) as ray:
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        actor = ray.remote(num_cpus=1, max_restarts=0)(RayWorker)
        made_with = _made_with(settings)
        pool = Pool[Job, Encoded](ray, lambda: actor.remote(settings, only, made_with), count, _WORDS, at_hand=_AT_HAND)
        with closing(pool):
            yield from pool.done(jobs)


class RayWorker(Worker[Job, Encoded]):
    """An Encoder as ray's actor."""

    def __init__(self, settings: EncodeSettings, only: Collection[str] | None, made_with: dict[str, str]) -> None:
        self._settings = settings
        self._only = only
        self.made_with = made_with
        self.is_of_cluster = bool(settings.ray_address)

    def versions(self) -> dict[str, str]:
        return _made_with(self._settings)

    def load(self) -> None:
        self._encoder = Encoder(self._settings, self._only)

    def work(self, job: Job) -> Encoded:
        return self._encoder.encode(job)


def _made_with(settings: EncodeSettings) -> dict[str, str]:
    return {"redditgen": __version__, **versions(settings)}
