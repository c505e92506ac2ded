"""Jobs encoded in this process or by several of ray's, in the order of the jobs."""

from collections.abc import Collection, Generator, Iterable
from contextlib import closing

from redditgen import __version__
from redditgen.encode.batches import EncodeBatch
from redditgen.encode.encoder import EncodedLine, Encoder
from redditgen.runtime.ray_cluster import ray_connection
from redditgen.runtime.ray_pool import PoolMessages, RayPool, RayWorker
from redditgen.settings import EncodeSettings
from redditgen.titles.spacy_keywords import model_versions

_AT_HAND = 2  # jobs of a worker: it has its next one while this process is busy

EncodedBatch = tuple[int, list[EncodedLine]]


def _told(job: EncodeBatch) -> str:
    longest = max(len(row.source) for row in job.rows)
    return f"a batch of {len(job.rows)} texts, the longest of {longest} characters,"


_WORDS = PoolMessages(
    without_ray="--workers 1",
    waiting_for="a CPU of the ray cluster that others leave free, and for spaCy to load there",
    job=_told,
    remedy="fewer --workers leave each more memory",
)


def encode_in_process(
    jobs: Iterable[EncodeBatch], settings: EncodeSettings, only: Collection[str] | None
) -> Generator[EncodedBatch]:
    yield from map(Encoder(settings, only).encode, jobs)


def encode_with_ray(
    jobs: Iterable[EncodeBatch], settings: EncodeSettings, only: Collection[str] | None, workers: int | None
) -> Generator[EncodedBatch]:
    """The same by `workers` of ray's actors, or as many as the cluster has CPUs; close it to have them end."""
    with ray_connection(settings.ray_address, workers, without_ray=_WORDS.without_ray) as ray:
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        actor = ray.remote(num_cpus=1, max_restarts=0)(RayEncoder)
        made_with = _made_with(settings)
        pool = RayPool[EncodeBatch, EncodedBatch](
            ray, lambda: actor.remote(settings, only, made_with), count, _WORDS, jobs_per_worker=_AT_HAND
        )
        with closing(pool):
            yield from pool.results(jobs)


class RayEncoder(RayWorker[EncodeBatch, EncodedBatch]):
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

    def work(self, job: EncodeBatch) -> EncodedBatch:
        return self._encoder.encode(job)


def _made_with(settings: EncodeSettings) -> dict[str, str]:
    of_keywords = {} if settings.keywords_field else model_versions(settings.spacy_model)
    return {"redditgen": __version__, **of_keywords}
