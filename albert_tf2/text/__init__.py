"""Text to tokens: no TensorFlow in here."""
