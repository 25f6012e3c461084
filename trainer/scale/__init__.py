"""Training on many processes with PyTorch's own engine: FSDP2, expert parallelism, distributed checkpoints, started by torchrun.

    world = start()                                              # joins torchrun's processes; without torchrun there is one
    with torch.device("meta"):
        model = InteractionModel(spec)
    model = initialise(prepare(model, world), seed)              # sharded, and each rank has its part of the weights of one process

`start` joins, `sharding` says which parameters are gathered together and in which dtype, `expert_parallel` sends rows to their experts,
`plan` and `memory` tell what fits on how many GPUs. The model, the loss and the loop are those of one process. Nothing is imported here:
FSDP2 takes most of a second.
"""
