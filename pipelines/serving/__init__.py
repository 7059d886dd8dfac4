"""Asking an exported model about photos: in one go, and over HTTP."""
