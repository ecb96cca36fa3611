"""The roof: the command, the pipeline over all stages, the demo and its drawn world."""
