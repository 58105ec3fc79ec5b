"""Weights on disk: ours, TensorFlow 1 layouts, Hugging Face."""
