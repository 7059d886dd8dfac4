"""Names of files that one step writes and somebody else reads; needs no TensorFlow."""

# In a data set: class names, image size, counts, fingerprint.
DATASET_FILE = "dataset.json"
# Beside it: one line per photo that was read.
LEDGER_FILE = "photos.csv"
