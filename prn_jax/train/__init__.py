"""Training: state, step, loop, optimisers, schedules, checkpoints."""
