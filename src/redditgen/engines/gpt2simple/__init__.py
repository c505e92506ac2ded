"""The gpt-2-simple engine: gpt-2-simple 0.7.2 on TensorFlow 1.15, in a worker process under Python 3.7."""
