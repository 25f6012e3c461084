"""Training: a run folder, brought to its last step.

    stand = train(TrainSpec.of({"model": "nano", "corpora": [{"path": "corpus"}]}, where="here"), RunFolder("run"), audience)

`spec` is what a run is, `run_folder` what it leaves, `loop` goes through the steps, `step` is one of them; `loss`, `balance`, `optimizer`,
`schedule` its parts; `checkpoint` saves, `evaluate` looks at what was held out, `metrics` and `progress` tell.
"""
