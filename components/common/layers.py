"""What is asked of the layers of any net."""

from collections.abc import Iterator

import keras


def single_layers(net: keras.Model) -> Iterator[keras.layers.Layer]:
    """Gives the layers of a net in its order, and in place of a nested net the layers of that."""
    for layer in net.layers:
        if isinstance(layer, keras.Model):
            yield from single_layers(layer)
        else:
            yield layer
