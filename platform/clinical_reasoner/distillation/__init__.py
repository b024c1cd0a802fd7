"""Students: examples, training under Ray Train, baselines, export to a folder that vLLM loads."""
