"""Model and run directories in the layout that gpt-2-simple made the convention, as values.

    models/124M/      hparams.json, encoder.json, vocab.bpe, checkpoint, model.ckpt.{index,data-00000-of-00001}
    checkpoint/run1/  the same, with model-500.* for model.ckpt.*, and counter

`checkpoint` names the newest checkpoint and the older ones kept (TensorFlow's CheckpointState as text), `counter` its
step. What redditgen knows about a run besides stands in `redditgen.json`; a run without it, such as one made by
gpt-2-simple, is read with literal tokens. `optimizer-500.safetensors` lets the torch engine go on as if it had not
stopped, and so do `adapters-500/`, of which the checkpoint has the product (see lora.py).
"""

import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from redditgen.errors import InputError, MissingError
from redditgen.files import untrusted
from redditgen.files.atomic import WRITER_PATTERN, atomic_folder, atomic_write, make_folder
from redditgen.gpt2.formats import tf_checkpoint
from redditgen.gpt2.formats.adapters import AdapterDir
from redditgen.gpt2.formats.hugging_face import HuggingFaceDir
from redditgen.gpt2.hyperparameters import Hyperparameters
from redditgen.gpt2.metrics import MetricsFile, best_report
from redditgen.gpt2.run_info import RunInfo
from redditgen.gpt2.tokenizer import Tokenizer

if TYPE_CHECKING:
    from redditgen.gpt2.tensor_names import Tensors

PLOT_FILE = "loss.png"
BEST_STEP = "best"  # for the number of a step
# By a process that was killed while it wrote a file of a run.
_LEFT = re.compile(rf"\.(?!ctranslate2-).+\.{WRITER_PATTERN}\.tmp")
FINISHED_SIDECAR = "finetune"  # beside this name lies the sidecar of a finished run
BEGUN_SIDECAR = "begun"  # and beside this one that of the command that has begun last
_STEP = re.compile("[0-9]{1,18}")
_BYTES = 1 << 24  # of `checkpoint`, which has a line for each that is kept
_LATEST = re.compile(r'^model_checkpoint_path: "(.+)"$', re.MULTILINE)


@dataclass(frozen=True)
class ModelDir:
    """A directory with a GPT-2 in it, base model or run, read at its newest checkpoint or at that of `at_step`."""

    path: Path
    at_step: int | None = None

    @property
    def run_info_path(self) -> Path:
        return self.path / "redditgen.json"

    @property
    def metrics(self) -> MetricsFile:
        return MetricsFile(self.path / "metrics.jsonl")

    def hyperparameters(self) -> Hyperparameters:
        return Hyperparameters.load(self.path / "hparams.json")

    def run_info(self) -> RunInfo:
        return RunInfo.load(self.run_info_path)

    def tokenizer(self) -> Tokenizer:
        """The vocabulary; raises InputError where its size is not the model's."""
        tokenizer, wanted = Tokenizer.load(self.path), self.hyperparameters().n_vocab
        if len(tokenizer) != wanted:
            raise InputError(
                f"{self.path / 'encoder.json'}: holds {len(tokenizer)} tokens but hparams.json says {wanted}; "
                "take both from the same model"
            )
        return tokenizer

    def checkpoint_prefix(self) -> Path:
        """The prefix of the checkpoint to read: the newest, by the file `checkpoint`, unless `at_step` says another."""
        if self.at_step is not None:
            return self._at(self.at_step)
        path = self.path / "checkpoint"
        try:
            match = _LATEST.search(untrusted.read_text(path, _BYTES))
        except FileNotFoundError as error:
            raise MissingError(f"{path}: not there, so {self.path} holds no checkpoint") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: can't be read: {error}") from error
        # gpt-2-simple may have stood elsewhere when it wrote the name, so only the name's last part counts.
        name = Path(match[1]).name if match else ""
        if not name.strip(".") or not name.isprintable():
            raise InputError(f'{path}: names no checkpoint; its first line must be model_checkpoint_path: "model-N"')
        return self.path / name

    def _at(self, step: int) -> Path:
        prefix = self.path / f"model-{step}"
        if step not in (there := self._steps()):
            raise MissingError(
                f"{prefix}.index: not there; the run has steps {', '.join(map(str, there)) or 'none'} "
                "(finetune --max-checkpoints keeps more)"
            )
        return prefix

    def best(self) -> "ModelDir":
        """This directory at the checkpoint of the lowest held-out loss, of those that are there."""
        if step := self.best_step():
            return ModelDir(self.path, step)
        there = ", ".join(map(str, self._steps())) or "none"
        raise MissingError(
            f"{self.path / 'metrics.jsonl'}: has no held-out loss of a checkpoint that is there (steps {there}); "
            "finetune --keep-best keeps the best"
        )

    def best_step(self, making: int | None = None) -> int | None:
        """The step of that checkpoint, if it is known; with `making`, a step that is yet to be saved, counted in."""
        there = [*self._steps(), making]
        found = best_report(report for report in self.metrics.reports() if report.step in there)
        return found.step if found else None

    def _steps(self) -> list[int]:
        """The steps whose checkpoints are there, in order."""
        numbers = (path.stem.partition("-")[2] for path in self.path.glob("model-*.index"))
        return sorted(int(number) for number in numbers if _STEP.fullmatch(number))

    def tensors(self) -> "Tensors":
        return tf_checkpoint.read_tensors(self.checkpoint_prefix(), self.hyperparameters().tensor_shapes())

    def weights_file(self) -> Path:
        """The file whose hash tells the weights: the index of that checkpoint, with a checksum of every tensor."""
        return Path(f"{self.checkpoint_prefix()}.index")

    def step(self) -> int:
        """The step of the newest checkpoint; 0 for a base model."""
        _, _, number = self.checkpoint_prefix().name.rpartition("-")
        return int(number) if _STEP.fullmatch(number) else 0

    def write_base(self, hyperparameters: Hyperparameters, tokenizer: Tokenizer, tensors: "Tensors") -> None:
        """Make this directory a base model."""
        make_folder(self.path)
        hyperparameters.save(self.path / "hparams.json")
        tokenizer.save(self.path)
        tf_checkpoint.write_checkpoint(self.path / "model.ckpt", tensors)
        self._point_to("model.ckpt")

    def start_run(self, base: "AnyModelDir", run_info: RunInfo) -> None:
        """Make this directory a run of a model of `base`'s shape and vocabulary, marked as ours."""
        make_folder(self.path)
        for left in self.path.glob(".*.tmp"):
            if _LEFT.fullmatch(left.name):
                _delete(left)
        if isinstance(base, HuggingFaceDir):
            base.hyperparameters().save(self.path / "hparams.json")
            base.tokenizer().save(self.path)
        elif base.path != self.path:
            for name in ("hparams.json", "encoder.json", "vocab.bpe"):
                with atomic_write(self.path / name) as temporary:
                    temporary.write_bytes((base.path / name).read_bytes())
        else:
            self._delete_steps_after(base.step())
        run_info.save(self.run_info_path)

    def clear_run(self) -> None:
        """Delete what a run before this one wrote here, and nothing else."""
        if not self.path.is_dir():
            return
        for name in (
            "checkpoint",
            "counter",
            "metrics.jsonl",
            f"{FINISHED_SIDECAR}.meta.json",
            PLOT_FILE,
            self.run_info_path.name,
        ):
            _delete(self.path / name)
        made = ("events.out.tfevents.*", "ctranslate2-*", "evaluation/evaluation.*")
        for path in (*self._of_steps(), *(path for pattern in made for path in self.path.glob(pattern))):
            _delete(path)
        with suppress(OSError):  # it is not there, or holds what others put there
            (self.path / "evaluation").rmdir()

    def _delete_steps_after(self, step: int) -> None:
        """They come again. What was killed just before it named its new checkpoint has left a whole one."""
        for path in self._of_steps():
            number = path.name.partition(".")[0].rpartition("-")[2]
            if _STEP.fullmatch(number) and int(number) > step:
                _delete(path)

    def _of_steps(self) -> list[Path]:
        return [path for kind in ("model", "optimizer", "adapters") for path in self.path.glob(f"{kind}-*")]

    def save_checkpoint(
        self,
        step: int,
        tensors: "Tensors",
        optimizer: "Tensors",
        *,
        keep: int = 1,
        best: int | None = None,
        save_adapters: Callable[[Path], None] | None = None,
    ) -> None:
        """Save a checkpoint and make it the newest; older ones but the `keep` newest go only after that (0: none).

        That of step `best` stays too. Whenever this is cut short, the checkpoint before it is there, or the new one.
        `tensors` have the adapters in them that `save_adapters` writes into a folder.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        folder, path = self._adapters_path(step), self._optimizer_path(step)
        _delete(folder)  # of a checkpoint that was never finished
        if save_adapters:
            with atomic_folder(folder) as temporary:
                save_adapters(temporary)
        with atomic_write(path) as temporary:
            try:
                save_file(optimizer, temporary)
            except SafetensorError as error:  # a full disk, among others
                raise InputError(f"{path}: can't be written: {error}") from error
        tf_checkpoint.write_checkpoint(self.path / f"model-{step}", tensors)
        self._make_newest(step, keep, best)

    def adopt_checkpoint(self, step: int, files: Iterable[Path], *, keep: int = 1) -> None:
        """The same with a checkpoint's files as TensorFlow wrote them, `model-<step>.*` on the same disk."""
        # The index last: without it there is no checkpoint.
        for file in sorted(files, key=lambda file: file.suffix == ".index"):
            with atomic_write(self.path / file.name) as temporary:
                file.replace(temporary)
        self._make_newest(step, keep)

    def _make_newest(self, step: int, keep: int, best: int | None = None) -> None:
        with atomic_write(self.path / "counter") as temporary:
            temporary.write_text(f"{step}\n", encoding="utf8")
        there = [*(other for other in self._steps() if other < step), step]
        kept = [number for number in there if number in there[-keep or None :] or number == best]
        self._point_to(*(f"model-{number}" for number in kept))
        names = {f"{kind}-{number}" for number in kept for kind in ("model", "adapters")} | {f"optimizer-{step}"}
        if adapters := self.adapters():
            names.add(adapters.base().path)  # may be an earlier checkpoint of the run itself
        for path in self._of_steps():
            if path.name.partition(".")[0] not in names:
                _delete(path)

    def adapters(self) -> AdapterDir | None:
        """Those of the newest checkpoint, if it was trained with any."""
        folder = self._adapters_path(self.step())
        return AdapterDir(folder) if folder.is_dir() else None

    def _adapters_path(self, step: int) -> Path:
        return self.path / f"adapters-{step}"

    def optimizer_state(self) -> "Tensors":
        """What the optimizer of the newest checkpoint remembered; empty if it was not saved, as by gpt-2-simple."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self._optimizer_path(self.step())
        if not path.exists():
            return {}
        try:
            return load_file(path)
        # The last four: of types that NumPy has not.
        except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: can't be read ({error}); delete it to go on without it") from error

    def _optimizer_path(self, step: int) -> Path:
        return self.path / f"optimizer-{step}.safetensors"

    def _point_to(self, *names: str) -> None:
        """Write `checkpoint` for these checkpoints, the newest last."""
        lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
        with atomic_write(self.path / "checkpoint") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf8")


def _delete(path: Path) -> None:
    """Delete a file or a folder, if it is there."""
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: can't be deleted: {error.strerror or error}") from error


AnyModelDir = ModelDir | HuggingFaceDir
