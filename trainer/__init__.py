"""Model, loader, training. Built so far: the loader, in `data`."""
