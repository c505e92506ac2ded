"""File formats of GPT-2 models: TensorFlow checkpoints, Hugging Face folders, LoRA adapters, CTranslate2 models."""
