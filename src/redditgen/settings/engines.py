"""What the options of several commands say of engines."""

ENGINES = ("torch", "gpt-2-simple")
ENGINE_HELP = "torch, or gpt-2-simple: the report's own, on TensorFlow 1.15 (redditgen doctor --install tf1)."
TF1_PYTHON_HELP = (
    "Python 3.7 that has TensorFlow 1.15.  [default: $REDDITGEN_TF1_PYTHON, else what doctor --install tf1 made]"
)
