"""The studio: a web page over the service to chat, generate images, compare runs, watch training and rank answers."""
