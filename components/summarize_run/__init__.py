"""What became of a run on Vertex AI, written down whatever happened."""
