"""Publishes trained models: preprocessor, encoder, serving, TFLite, card."""
