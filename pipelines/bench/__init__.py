"""`microturn bench build`: what a build costs, beside decoding alone and beside the scripts that people write instead."""
