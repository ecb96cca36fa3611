"""The scripts that trained the demo models. Not part of the wheel."""
