"""Makes the example workflows, their thumbnails and the pictures of the help pages."""
