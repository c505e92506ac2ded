"""What trains and samples a GPT-2: PyTorch, CTranslate2, and gpt-2-simple on TensorFlow 1.15."""
