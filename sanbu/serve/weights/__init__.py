"""Memory formats of linear layers for inference."""
