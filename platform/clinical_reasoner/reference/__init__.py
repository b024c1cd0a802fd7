"""Small models of the project's own making, so that everything runs with no download. Stand-ins, not medical models."""
