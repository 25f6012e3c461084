"""Training: see loop.py."""
