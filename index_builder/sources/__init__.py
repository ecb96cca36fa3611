"""What is embedded: inputs of each kind, vectors that others made, and one final status an input."""
