"""Raw two-party recordings with known truth: who says what, when, and what can be seen."""
