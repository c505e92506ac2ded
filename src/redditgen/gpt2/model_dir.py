"""Reads and writes model directories: base models in OpenAI's layout, and runs in gpt-2-simple's.

    models/124M/      hparams.json, encoder.json, vocab.bpe, checkpoint, model.ckpt.{index,data-00000-of-00001}
    checkpoint/run1/  these files, with model-500.* in place of model.ckpt.*, and counter

`checkpoint` names the newest checkpoint and the older ones that are kept (TensorFlow's CheckpointState as text), and
`counter` holds the step of the newest. Only runs made by redditgen have the following:

    redditgen.json              the run info; a run without it, such as gpt-2-simple's, is read with literal tokens
    metrics.jsonl               the measurements
    optimizer-500.safetensors   the optimizer's state, with which the torch engine continues as if it had not stopped
    adapters-500/               LoRA adapters, for the same purpose; the checkpoint's weights contain their product

A checkpoint is written in full before `counter` and then `checkpoint` name it, and older ones are deleted last. So a
process that is killed at any time leaves the previous checkpoint or the new one.
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
BEST_STEP = "best"  # accepted in place of a step's number
# Temporary names of a run's files, which a killed process leaves. Those of CTranslate2 models are not among them, since
# a process that samples from the run may be writing one now.
_LEFTOVER = re.compile(rf"\.(?!ctranslate2-).+\.{WRITER_PATTERN}\.tmp")
FINISHED_SIDECAR = "finetune"  # a finished run has the sidecar finetune.meta.json
BEGUN_SIDECAR = "begun"  # the command that began last has the sidecar begun.meta.json
_STEP = re.compile("[0-9]{1,18}")
_MAX_STATE_BYTES = 1 << 24  # of the file `checkpoint`, which has a line for each checkpoint that is kept
_LATEST = re.compile(r'^model_checkpoint_path: "(.+)"$', re.MULTILINE)


@dataclass(frozen=True)
class ModelDir:
    """A directory with a GPT-2, either a base model or a run.

    Its newest checkpoint is read, or that of step `at_step` where it is given.
    """

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
        """Read the vocabulary; raises InputError where its size is not that of the model."""
        tokenizer, wanted = Tokenizer.load(self.path), self.hyperparameters().n_vocab
        if len(tokenizer) != wanted:
            raise InputError(
                f"{self.path / 'encoder.json'}: holds {len(tokenizer)} tokens but hparams.json says {wanted}; "
                "take both from the same model"
            )
        return tokenizer

    def checkpoint_prefix(self) -> Path:
        """Return the path of the checkpoint to read, without its endings `.index` and `.data-*`.

        It is that of step `at_step`, or else the newest, which the file `checkpoint` names. Raises MissingError where
        there is none, and InputError where `checkpoint` can't be read.
        """
        if self.at_step is not None:
            return self._prefix_at_step(self.at_step)
        path = self.path / "checkpoint"
        try:
            match = _LATEST.search(untrusted.read_text(path, _MAX_STATE_BYTES))
        except FileNotFoundError as error:
            raise MissingError(f"{path}: not there, so {self.path} holds no checkpoint") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: can't be read: {error}") from error
        # The path may be relative to the folder in which gpt-2-simple ran, so only its last part is used.
        name = Path(match[1]).name if match else ""
        if not name.strip(".") or not name.isprintable():
            raise InputError(f'{path}: names no checkpoint; its first line must be model_checkpoint_path: "model-N"')
        return self.path / name

    def _prefix_at_step(self, step: int) -> Path:
        prefix = self.path / f"model-{step}"
        if step not in (steps := self._steps()):
            raise MissingError(
                f"{prefix}.index: not there; the run has steps {', '.join(map(str, steps)) or 'none'} "
                "(finetune --max-checkpoints keeps more)"
            )
        return prefix

    def best(self) -> "ModelDir":
        """Return this directory at the checkpoint with the lowest held-out loss.

        Raises MissingError where no checkpoint in the directory has a held-out loss.
        """
        if step := self.best_step():
            return ModelDir(self.path, step)
        steps = ", ".join(map(str, self._steps())) or "none"
        raise MissingError(
            f"{self.path / 'metrics.jsonl'}: has no held-out loss of a checkpoint that is there (steps {steps}); "
            "finetune --keep-best keeps the best"
        )

    def best_step(self, unsaved_step: int | None = None) -> int | None:
        """Return the step of the checkpoint with the lowest held-out loss; None where none has a held-out loss.

        It is chosen from the checkpoints in the directory and from `unsaved_step`, whose checkpoint is yet to be saved.
        """
        steps = [*self._steps(), unsaved_step]
        best = best_report(report for report in self.metrics.reports() if report.step in steps)
        return best.step if best else None

    def _steps(self) -> list[int]:
        """Return the steps of the checkpoints in the directory, in ascending order."""
        numbers = (path.stem.partition("-")[2] for path in self.path.glob("model-*.index"))
        return sorted(int(number) for number in numbers if _STEP.fullmatch(number))

    def tensors(self) -> "Tensors":
        """Read the checkpoint's weights by tensor name; raises MissingError or InputError where they can't be read."""
        return tf_checkpoint.read_tensors(self.checkpoint_prefix(), self.hyperparameters().tensor_shapes())

    def weights_file(self) -> Path:
        """Return the file whose hash identifies the weights: the index, which holds a checksum of every tensor."""
        return Path(f"{self.checkpoint_prefix()}.index")

    def step(self) -> int:
        """Return the step of the checkpoint that is read; 0 for a base model."""
        _, _, number = self.checkpoint_prefix().name.rpartition("-")
        return int(number) if _STEP.fullmatch(number) else 0

    def write_base(self, hyperparameters: Hyperparameters, tokenizer: Tokenizer, tensors: "Tensors") -> None:
        """Write a base model into this directory; raises InputError or OSError where it can't."""
        make_folder(self.path)
        hyperparameters.save(self.path / "hparams.json")
        tokenizer.save(self.path)
        tf_checkpoint.write_checkpoint(self.path / "model.ckpt", tensors)
        self._write_state("model.ckpt")

    def start_run(self, base: "AnyModelDir", run_info: RunInfo) -> None:
        """Prepare this directory for a run trained from `base`: copy its sizes and vocabulary, and write the run info.

        Temporary files of killed processes are deleted first. Where `base` is this run, the checkpoints of later steps
        are deleted too. Raises InputError where a file can't be written or deleted.
        """
        make_folder(self.path)
        for leftover in self.path.glob(".*.tmp"):
            if _LEFTOVER.fullmatch(leftover.name):
                _delete(leftover)
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
        """Delete the files of the run in this directory and no others; raises InputError where one can't be deleted."""
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
        patterns = ("events.out.tfevents.*", "ctranslate2-*", "evaluation/evaluation.*")
        for path in (*self._step_paths(), *(path for pattern in patterns for path in self.path.glob(pattern))):
            _delete(path)
        with suppress(OSError):  # it does not exist, or holds files of the user
            (self.path / "evaluation").rmdir()

    def _delete_steps_after(self, step: int) -> None:
        """Delete the files of steps after `step`, which the continued training saves again.

        A process that is killed just before it updates `checkpoint` leaves such a checkpoint, which is complete.
        """
        for path in self._step_paths():
            number = path.name.partition(".")[0].rpartition("-")[2]
            if _STEP.fullmatch(number) and int(number) > step:
                _delete(path)

    def _step_paths(self) -> list[Path]:
        """Return the paths of all checkpoints, optimizer states and adapters."""
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
        """Save a checkpoint, make it the newest, and only then delete older ones.

        The `keep` newest checkpoints are kept, all of them where it is 0, and so is that of step `best`. `tensors` are
        the weights, with any adapters merged into them; `optimizer` is the optimizer's state; `save_adapters` writes
        the adapters into the folder that it is called with. Raises InputError where a file can't be written.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        folder, path = self._adapters_path(step), self._optimizer_path(step)
        _delete(folder)  # left where saving this step was interrupted
        if save_adapters:
            with atomic_folder(folder) as temporary:
                save_adapters(temporary)
        with atomic_write(path) as temporary:
            try:
                save_file(optimizer, temporary)
            except SafetensorError as error:  # raised for a full disk, among other reasons
                raise InputError(f"{path}: can't be written: {error}") from error
        tf_checkpoint.write_checkpoint(self.path / f"model-{step}", tensors)
        self._make_newest(step, keep, best)

    def adopt_checkpoint(self, step: int, files: Iterable[Path], *, keep: int = 1) -> None:
        """Move a checkpoint that TensorFlow wrote into this directory, make it the newest, and then delete older ones.

        `files` are its `model-<step>.*`, on the file system of this directory. The `keep` newest checkpoints are kept,
        all of them where it is 0. Raises InputError where a file can't be moved.
        """
        # The index is moved last, since a checkpoint without an index is not found.
        for file in sorted(files, key=lambda file: file.suffix == ".index"):
            with atomic_write(self.path / file.name) as temporary:
                file.replace(temporary)
        self._make_newest(step, keep)

    def _make_newest(self, step: int, keep: int, best: int | None = None) -> None:
        with atomic_write(self.path / "counter") as temporary:
            temporary.write_text(f"{step}\n", encoding="utf8")
        steps = [*(other for other in self._steps() if other < step), step]
        kept_steps = [number for number in steps if number in steps[-keep or None :] or number == best]
        self._write_state(*(f"model-{number}" for number in kept_steps))
        kept = {f"{kind}-{number}" for number in kept_steps for kind in ("model", "adapters")} | {f"optimizer-{step}"}
        if adapters := self.adapters():
            kept.add(adapters.base().path)  # may be an earlier checkpoint of the run itself
        for path in self._step_paths():
            if path.name.partition(".")[0] not in kept:
                _delete(path)

    def adapters(self) -> AdapterDir | None:
        """Return the adapters of the checkpoint that is read; None where it was trained without any."""
        folder = self._adapters_path(self.step())
        return AdapterDir(folder) if folder.is_dir() else None

    def _adapters_path(self, step: int) -> Path:
        return self.path / f"adapters-{step}"

    def optimizer_state(self) -> "Tensors":
        """Read the optimizer's state at the checkpoint that is read, as arrays by name.

        It is empty where none was saved, as by gpt-2-simple. Raises InputError where the file can't be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self._optimizer_path(self.step())
        if not path.exists():
            return {}
        try:
            return load_file(path)
        # safetensors raises the last four for types that NumPy lacks.
        except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: can't be read ({error}); delete it to go on without it") from error

    def _optimizer_path(self, step: int) -> Path:
        return self.path / f"optimizer-{step}.safetensors"

    def _write_state(self, *names: str) -> None:
        """Write the file `checkpoint` with the names of these checkpoints, the newest last."""
        lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
        with atomic_write(self.path / "checkpoint") as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf8")


def _delete(path: Path) -> None:
    """Delete a file or a folder if it exists; raises InputError where it can't be deleted."""
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: can't be deleted: {error.strerror or error}") from error


AnyModelDir = ModelDir | HuggingFaceDir
