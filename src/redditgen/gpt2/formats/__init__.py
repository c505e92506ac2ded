"""File formats of a GPT-2: TensorFlow checkpoints, Hugging Face folders, LoRA adapters, CTranslate2 models."""
