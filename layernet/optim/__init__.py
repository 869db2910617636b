"""What moves the parameters: optimizers, and schedules for their learning rate."""
