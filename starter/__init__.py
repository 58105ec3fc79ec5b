"""A small model that comes along: `load_pretrained("starter")`.

Made by `benchmarks/make_starter.py`; the card, README.md, says from what.
"""
