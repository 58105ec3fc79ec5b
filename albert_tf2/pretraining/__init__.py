"""What is pre-training's alone."""
