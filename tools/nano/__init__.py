"""Makes sd3-nano, the tiny trained SD3 model, from nothing but code."""
