"""Long work: training, sampling to files, evaluation; durable writes and run folders."""
