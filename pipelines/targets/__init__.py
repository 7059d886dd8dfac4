"""Where the pipeline runs; what differs between the places."""
