"""Deployment of an exported model behind the champion rule."""
