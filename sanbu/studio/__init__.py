"""The studio: a page over the service, where people talk, draw, compare, watch runs and rank answers."""
