"""Model, loader, training. Not built yet; nothing here is importable but this line."""
