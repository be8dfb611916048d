"""What a model, its checkpoints and its training take: parameters, bytes on a disk and on a device, hours."""
