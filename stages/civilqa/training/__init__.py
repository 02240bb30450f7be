"""Training a LoRA adapter: recipe, trainer, checkpoints, memory."""
