"""What a run costs, counted before anything is built: memory, parameters and FLOPs; and the memory that is left."""
