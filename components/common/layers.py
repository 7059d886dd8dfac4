"""What is asked of the layers of any net."""

from collections.abc import Iterator

import keras


def single_layers(net: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a net in their order, those of nets within it in the place of these."""
    for layer in net.layers:
        if isinstance(layer, keras.Model):
            yield from single_layers(layer)
        else:
            yield layer
