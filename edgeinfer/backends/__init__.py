"""Ways to run models, each one file behind ``base.Backend`` and an entry point."""
