"""A workshop: LLaVA-1.5 captions and their quality."""
