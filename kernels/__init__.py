"""Arithmetic with a fixed order. Not built yet; nothing here is importable but this line."""
