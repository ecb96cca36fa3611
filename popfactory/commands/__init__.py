"""The verbs of the `popfactory` command, one module for each package they call."""
