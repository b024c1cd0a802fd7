"""Configuration: YAML files and overrides, checked against strict models before anything heavy is imported."""
