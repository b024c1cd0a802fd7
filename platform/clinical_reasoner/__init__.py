"""Reasoning-aware clinical diagnosis on Ray: from study files to a served, explained diagnosis. Research use only."""

__version__ = "0.1.0"
