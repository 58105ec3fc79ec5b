"""Task examples to a tuned model."""
