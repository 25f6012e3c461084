"""The interaction model: the open relatives' block, with ears for itself and a mouth of its own, on operations that keep law 3.

    model = InteractionModel(ModelSpec.preset("nano"))
    output = model(Inputs.of(batch))                       # Output: hidden rows, what the routers did, the state to go on from
    logits = model.text_logits(output.hidden_TD[batch.text_rows])
    velocity = model.flow(output.hidden_TD[batch.flow_rows], x_F320, time_F)

`spec` has the sizes and presets, `count` their parameters by a formula, `inputs` what a row is embedded from, `state` what a document
leaves behind, `block`, `attention`, `experts`, `embedding` the parts, `flow` the head that speaks, `initial` the first weights.
"""

from .count import Counts, count
from .flow import FlowHead
from .initial import initialise
from .inputs import Inputs
from .model import InteractionModel, Output
from .spec import PRESETS, ModelSpec
from .state import State

__all__ = ["PRESETS", "Counts", "FlowHead", "Inputs", "InteractionModel", "ModelSpec", "Output", "State", "count", "initialise"]
