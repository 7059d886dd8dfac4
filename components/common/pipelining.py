"""What every pipeline of `tf.data` here has in common."""

import tensorflow as tf


def without_tuner(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Leaves out the thread that tunes a pipeline, and what is made of it needs none either.

    That thread sleeps twice as long each time, up to a minute, and the end of a pipeline may have
    to wait until it wakes: some ends of an epoch's validation took as long as the validation.
    What `AUTOTUNE` leaves open is then 16 parallel calls, on as many threads as there are cores,
    and a prefetched buffer that grows whenever it was found empty.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
