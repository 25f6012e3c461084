"""Looking and listening: the notebooks, and the plots and report they share."""
