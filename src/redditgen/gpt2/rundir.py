"""Model and run directories in the layout that gpt-2-simple made the convention, as values.

    models/124M/      hparams.json, encoder.json, vocab.bpe, checkpoint, model.ckpt.{index,data-00000-of-00001}
    checkpoint/run1/  the same, with model-500.* for model.ckpt.*, and counter

`checkpoint` names the newest checkpoint (TensorFlow's CheckpointState as text), `counter` its step. What redditgen
knows about a run besides stands in `redditgen.json`; a run without it, such as one made by gpt-2-simple, is read with
literal tokens. `optimizer-500.safetensors` lets the torch engine go on as if it had not stopped.
"""

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen import bundled
from redditgen.errors import InputError, MissingError
from redditgen.gpt2 import bundle
from redditgen.gpt2.tokenizer import Tokenizer
from redditgen.gpt2.weights import Hparams
from redditgen.output import make_folder, whole

if TYPE_CHECKING:
    from redditgen.gpt2.weights import Tensors

COMPACT, LITERAL = "compact", "literal"
_LATEST = re.compile(r'^model_checkpoint_path: "(.+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Mark:
    """What `redditgen.json` says of a run: how its records were tokenized, and what stood in them."""

    record_tokens: str = LITERAL
    model: str = ""
    sections: tuple[str, ...] = ()
    categories: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Mark":
        if not path.exists():
            return cls()
        try:
            content = json.loads(path.read_text(encoding="utf8"))
            mark = cls(**{**content, "sections": tuple(content["sections"])})
            if not isinstance(mark.categories, dict):
                raise TypeError("categories must be an object")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{path}: is not what redditgen writes ({error}); delete it if the run is foreign"
            ) from error
        if mark.record_tokens not in (COMPACT, LITERAL):
            raise InputError(f"{path}: record_tokens must be {COMPACT} or {LITERAL}, not {mark.record_tokens!r}")
        return mark

    def save(self, path: Path) -> None:
        with whole(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), ensure_ascii=False) + "\n", encoding="utf8")


@dataclass(frozen=True)
class ModelDir:
    """A directory with a GPT-2 in it, base model or run."""

    path: Path

    @property
    def mark_path(self) -> Path:
        return self.path / "redditgen.json"

    def hparams(self) -> Hparams:
        return Hparams.load(self.path / "hparams.json")

    def mark(self) -> Mark:
        return Mark.load(self.mark_path)

    def tokenizer(self) -> Tokenizer:
        """The vocabulary; raises InputError where its size is not the model's."""
        tokenizer, wanted = Tokenizer.load(self.path), self.hparams().n_vocab
        if len(tokenizer) != wanted:
            raise InputError(
                f"{self.path / 'encoder.json'}: holds {len(tokenizer)} tokens but hparams.json says {wanted}; "
                "take both from the same model"
            )
        return tokenizer

    def latest(self) -> Path:
        """The prefix of the newest checkpoint, by the file `checkpoint`."""
        path = self.path / "checkpoint"
        try:
            match = _LATEST.search(path.read_text(encoding="utf8"))
        except FileNotFoundError as error:
            raise MissingError(f"{path}: not there, so {self.path} holds no checkpoint") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: can't be read: {error}") from error
        if not match:
            raise InputError(f'{path}: names no checkpoint; its first line must be model_checkpoint_path: "model-N"')
        # gpt-2-simple may have stood elsewhere when it wrote the name, so only the name's last part counts.
        return self.path / Path(match[1]).name

    def tensors(self) -> "Tensors":
        return bundle.read(self.latest(), self.hparams().shapes())

    def step(self) -> int:
        """The step of the newest checkpoint; 0 for a base model."""
        _, _, number = self.latest().name.rpartition("-")
        return int(number) if number.isdigit() else 0

    def write_base(self, hparams: Hparams, tokenizer: Tokenizer, tensors: "Tensors") -> None:
        """Make this directory a base model."""
        make_folder(self.path)
        hparams.save(self.path / "hparams.json")
        tokenizer.save(self.path)
        bundle.write(self.path / "model.ckpt", tensors)
        self._point_to("model.ckpt")

    def start(self, base: "ModelDir", mark: Mark) -> None:
        """Make this directory a run of a model of `base`'s shape and vocabulary, marked as ours."""
        make_folder(self.path)
        if base.path != self.path:
            for name in ("hparams.json", "encoder.json", "vocab.bpe"):
                with whole(self.path / name) as temporary:
                    temporary.write_bytes((base.path / name).read_bytes())
        mark.save(self.mark_path)

    def clear(self) -> None:
        """Delete what a run before this one wrote here, and nothing else."""
        if not self.path.is_dir():
            return
        for name in ("checkpoint", "counter", "metrics.jsonl", self.mark_path.name):
            (self.path / name).unlink(missing_ok=True)
        for path in self._of_steps():
            path.unlink()
        for folder in self.path.glob("ctranslate2-*"):
            shutil.rmtree(folder)

    def _of_steps(self) -> list[Path]:
        return [*self.path.glob("model-*"), *self.path.glob("optimizer-*")]

    def write_step(self, step: int, tensors: "Tensors", optimizer: "Tensors") -> None:
        """Save a checkpoint and make it the newest; the one before is deleted only after that."""
        from safetensors.numpy import save_file

        with whole(self._optimizer_path(step)) as temporary:
            save_file(optimizer, temporary)
        bundle.write(self.path / f"model-{step}", tensors)
        with whole(self.path / "counter") as temporary:
            temporary.write_text(f"{step}\n", encoding="utf8")
        self._point_to(f"model-{step}")
        for path in self._of_steps():
            if path.name.partition(".")[0].partition("-")[2] != str(step):
                path.unlink()

    def optimizer_state(self) -> "Tensors":
        """What the optimizer of the newest checkpoint remembered; empty if it was not saved, as by gpt-2-simple."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self._optimizer_path(self.step())
        if not path.exists():
            return {}
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: can't be read ({error}); delete it to go on without it") from error

    def _optimizer_path(self, step: int) -> Path:
        return self.path / f"optimizer-{step}.safetensors"

    def _point_to(self, name: str) -> None:
        with whole(self.path / "checkpoint") as temporary:
            lines = (f'model_checkpoint_path: "{name}"', f'all_model_checkpoint_paths: "{name}"')
            temporary.write_text("\n".join(lines) + "\n", encoding="utf8")


def find_model(name: str, model_dir: Path) -> ModelDir:
    """A base model by name: in `model_dir`, else among those that come with redditgen."""
    places = [model_dir / name, bundled.path(f"models/{name}")]
    for place in places:
        if (place / "hparams.json").exists():
            return ModelDir(place)
    there = sorted({p.parent.name for folder in places for p in folder.parent.glob("*/hparams.json")})
    raise MissingError(
        f"model {name}: no {places[0] / 'hparams.json'}; the models there are: {', '.join(there) or 'none'}"
    )


def find_run(name: str, checkpoint_dir: Path) -> ModelDir:
    """A run by name; raises MissingError naming the runs there are."""
    place = checkpoint_dir / name
    if (place / "checkpoint").exists():
        return ModelDir(place)
    there = sorted(p.parent.name for p in checkpoint_dir.glob("*/checkpoint"))
    raise MissingError(
        f"run {name}: no {place / 'checkpoint'}; make it with: redditgen finetune DATASET --run {name} "
        f"(runs there are: {', '.join(there) or 'none'})"
    )
