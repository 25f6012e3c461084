"""Weights to and from files that others read: the open Inkling format, and plain safetensors under our own names.

    export(model.state_dict(), spec, layout, folder)            a folder that engines which serve Inkling can load
    opened = load(folder)                                       ours or anybody's: spec, layout, weights read when asked for
    missing = fill(model, opened.weights)                       the names that the folder did not have

`names` says which tensor of theirs is which part of ours, `config` translates config.json, `shards` reads and writes safetensors one
shard at a time, `passport` is microturn.json, what the open format has no place for.
"""

from .inkling import Carried, Opened, export, load
from .plain import export_plain, load_plain
from .shards import fill

__all__ = ["Carried", "Opened", "export", "export_plain", "fill", "load", "load_plain"]
