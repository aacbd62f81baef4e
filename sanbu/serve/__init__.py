"""Serving: the engine that batches requests, and the OpenAI-compatible HTTP API over it."""
