"""Photos to TFRecord shards of three splits."""
