"""Pictures and words to vectors: CLIP models, decoding, preprocessing, devices."""
