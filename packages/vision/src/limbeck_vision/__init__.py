"""Image classification on limbeck-core."""
