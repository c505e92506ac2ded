"""The engines that train and sample a GPT-2: PyTorch, CTranslate2, and gpt-2-simple on TensorFlow 1.15."""
