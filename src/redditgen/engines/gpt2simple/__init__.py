"""gpt-2-simple 0.7.2 on TensorFlow 1.15, in a worker process of a Python 3.7."""
