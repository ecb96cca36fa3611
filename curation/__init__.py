"""A workshop: fetched images, selection, curators' decisions, release."""
