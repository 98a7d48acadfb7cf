"""Programs a maintainer runs."""
