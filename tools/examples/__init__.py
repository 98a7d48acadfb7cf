"""Makes the example workflows and blueprints, their thumbnails and the pictures of the help pages."""
