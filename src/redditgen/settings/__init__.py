"""The settings of every command: one frozen dataclass each, with its defaults, help texts and checks.

The command line builds its options from these fields (`min_score` becomes `--min-score`), so each is described once.
"""

from redditgen.gpt2.find import OPENAI_MODELS
from redditgen.settings.decode import DecodeSettings
from redditgen.settings.doctor import DoctorSettings
from redditgen.settings.download import DownloadSettings
from redditgen.settings.encode import EncodeSettings
from redditgen.settings.evaluate import EvaluateSettings
from redditgen.settings.export import ExportSettings
from redditgen.settings.fetch import ARCTIC_SHIFT_URL, FetchSettings
from redditgen.settings.finetune import FinetuneSettings
from redditgen.settings.general import GeneralSettings
from redditgen.settings.generate import GenerateSettings
from redditgen.settings.tokenize import TokenizeSettings

__all__ = [
    "ARCTIC_SHIFT_URL",
    "OPENAI_MODELS",
    "DecodeSettings",
    "DoctorSettings",
    "DownloadSettings",
    "EncodeSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FetchSettings",
    "FinetuneSettings",
    "GeneralSettings",
    "GenerateSettings",
    "TokenizeSettings",
]
