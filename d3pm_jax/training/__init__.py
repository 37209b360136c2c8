"""One step of a training: pure, jitted once, without a disk."""
