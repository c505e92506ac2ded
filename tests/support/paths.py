"""Where things lie: the repository, and data beside it that is not part of it and may be missing."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
SHARED_DATA = SHARED / "data"
OPENAI = SHARED_DATA / "openai-124M"
