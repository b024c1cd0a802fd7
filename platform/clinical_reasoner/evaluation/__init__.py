"""What the models are worth: metrics with intervals, figures and the report."""
