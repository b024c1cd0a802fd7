"""The teacher writes why: asks, generation under Ray Data, and what is kept."""
