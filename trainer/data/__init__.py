"""What a model trains on: corpora in, ragged batches out, in one order that depends on nothing but (seed, epoch, token).

    corpus = OpenCorpus.open("corpus")
    mixture = Mixture.of([corpus], DataSpec(seed=1, sequence_tokens=4096))
    for batch in Loader(mixture, step_sequences=8, workers=2): …

`Place` is the state to save, `OpenCorpus.identity` what to save once so that no other corpus is taken for this one. `tars` reads shards
without any index.
"""

from .batch import Batch, Segment
from .corpus import OpenCorpus, refuse_another
from .document import OPENING, Document
from .loader import Loader
from .making import Damage
from .mixture import Cursor, Mixture, Place
from .order import Dropped
from .spec import DataSpec

__all__ = [
    "OPENING", "Batch", "Cursor", "Damage", "DataSpec", "Document", "Dropped", "Loader", "Mixture", "OpenCorpus", "Place", "Segment",
    "refuse_another",
]  # fmt: skip
