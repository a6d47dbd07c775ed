"""Networks that travel: published folders, the Hugging Face hub, and checkpoints that others made."""
