"""Options that several commands share, each as a function that declares the field (see options.option)."""

from functools import partial
from pathlib import Path

from redditgen.settings.options import option

ENGINES = ("torch", "gpt-2-simple")

run = partial(option, "run1", "Name of the run, a folder in --checkpoint-dir.")
step = partial(
    option,
    None,
    "Step of the run, of those kept, or best: that of the lowest held-out loss (finetune --keep-best).  "
    "[default: the newest]",
)
checkpoint_dir = partial(option, Path("checkpoint"), "Folder of the runs.")
model_dir = partial(option, Path("models"), "Folder of the base models.")
engine = partial(
    option, "torch", "torch, or gpt-2-simple: the report's own, on TensorFlow 1.15 (redditgen doctor --install tf1)."
)
tf1_python = partial(
    option,
    None,
    "Python 3.7 that has TensorFlow 1.15.  [default: $REDDITGEN_TF1_PYTHON, else what doctor --install tf1 made]",
)

skip_existing = partial(
    option,
    False,
    "Do nothing where the output is there already, whole and made of the same; else say what is another.",
    "--skip-existing",
)

# Sampling of titles.
temperature = partial(option, 0.7, "Below 1 makes likely words likelier; 0 takes the likeliest always.")
top_k = partial(option, 40, "Draw each token from this many likeliest ones; 0: from all.")
top_p = partial(option, 0.0, "Draw each token from the likeliest ones that make up this probability; 0: from all.")
length = partial(option, 100, "The most tokens of a title.")
novel_threshold = partial(
    option, 0.8, "How alike a title and one learned from must be for a near copy: 1 for the same three-letter runs."
)
