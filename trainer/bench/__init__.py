"""What the trainer's speed is measured by: `microturn bench`. Each measurement stands beside a peer or a floor of the same run."""
