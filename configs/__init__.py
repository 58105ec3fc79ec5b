"""Model configurations and training recipes, shipped as package data."""
