"""Encodes batches in this process or in several ray actors; results come in the order of the batches."""

from collections.abc import Collection, Generator, Iterable
from contextlib import closing

from redditgen import __version__
from redditgen.encode.batches import EncodeBatch
from redditgen.encode.encoder import EncodedLine, Encoder
from redditgen.runtime.ray_cluster import ray_connection
from redditgen.runtime.ray_pool import PoolMessages, RayPool, RayWorker
from redditgen.settings import EncodeSettings
from redditgen.titles.spacy_keywords import model_versions

_JOBS_PER_WORKER = 2  # so that a worker has its next job while this process is busy

EncodedBatch = tuple[int, list[EncodedLine]]


def _describe_job(job: EncodeBatch) -> str:
    longest = max(len(row.source) for row in job.rows)
    return f"a batch of {len(job.rows)} texts, the longest of {longest} characters,"


_MESSAGES = PoolMessages(
    without_ray="--workers 1",
    waiting_for="a CPU of the ray cluster that others leave free, and for spaCy to load there",
    job=_describe_job,
    remedy="fewer --workers leave each more memory",
)


def encode_in_process(
    jobs: Iterable[EncodeBatch], settings: EncodeSettings, only: Collection[str] | None
) -> Generator[EncodedBatch]:
    """Yield the result of each job, encoded in this process."""
    yield from map(Encoder(settings, only).encode, jobs)


def encode_with_ray(
    jobs: Iterable[EncodeBatch], settings: EncodeSettings, only: Collection[str] | None, workers: int | None
) -> Generator[EncodedBatch]:
    """Yield the result of each job, encoded by `workers` ray actors, by default one for each CPU of the cluster.

    Closing the generator ends the actors.
    """
    with ray_connection(settings.ray_address, workers, without_ray=_MESSAGES.without_ray) as ray:
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        actor = ray.remote(num_cpus=1, max_restarts=0)(RayEncoder)
        versions = _software_versions(settings)
        pool = RayPool[EncodeBatch, EncodedBatch](
            ray, lambda: actor.remote(settings, only, versions), count, _MESSAGES, jobs_per_worker=_JOBS_PER_WORKER
        )
        with closing(pool):
            yield from pool.results(jobs)


class RayEncoder(RayWorker[EncodeBatch, EncodedBatch]):
    """An Encoder as a ray actor."""

    def __init__(
        self, settings: EncodeSettings, only: Collection[str] | None, package_versions: dict[str, str]
    ) -> None:
        self._settings = settings
        self._only = only
        self.package_versions = package_versions
        self.is_on_cluster = bool(settings.ray_address)

    def versions(self) -> dict[str, str]:
        return _software_versions(self._settings)

    def load(self) -> None:
        self._encoder = Encoder(self._settings, self._only)

    def work(self, job: EncodeBatch) -> EncodedBatch:
        return self._encoder.encode(job)


def _software_versions(settings: EncodeSettings) -> dict[str, str]:
    """Return the versions of the software that the records depend on."""
    keyword_versions = {} if settings.keywords_field else model_versions(settings.spacy_model)
    return {"redditgen": __version__, **keyword_versions}
