"""The Triton forms of the ops: tiles, pipelines, masks and 64-bit addresses for CUDA devices, Hopper first.

Every op's meaning, its checks, its autograd and its CPU form stand one folder up; here are kernels and the functions that launch them.
Callers come through the ops: nobody else imports this package.

    tiles         the table of tile sizes, by op, dtype and architecture, never by the number of rows
    launch        how a kernel is launched, and what of a launch may not choose another binary
    arithmetic    the few device functions that kernels share: dot, sigmoid, …
    ahead         every kernel compiled for sm_80, sm_90 and sm_100 without a GPU, and what came of it
    device        the GPU's part of the fingerprint
    bench         every op's speed beside torch's, on the GPU that is there

**What has not run on a GPU: all of it.** Checked without one: every kernel runs in Triton's interpreter against `naive_…` (fp32, fp16,
bf16; odd shapes, gradients, memory that begins as NaN) and keeps the row law there; every kernel compiles for three architectures without
spilling, without atomics and without tf32, uses the architecture's matrix instruction for bf16 and none for fp32, and takes one binary for
any number of rows. That binary adds in one order for one row as for thousands; that the hardware's matrix instructions give a row the same
bits whatever stands in the tile's other rows, nobody has seen here. Nor has anybody seen the speed, or a race that only hardware shows.
`make gpu` runs everything there is to run on one: values, bits, speed.
"""
