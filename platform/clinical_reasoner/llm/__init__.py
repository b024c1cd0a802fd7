"""Chat prompts, answers and engines: shared by the batch stages and the endpoint."""
