"""Models as a service: one engine that batches whatever is asked, and what people and programs see of it."""
