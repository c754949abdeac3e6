"""Where a training job runs: on this machine, on another, on a cluster."""
