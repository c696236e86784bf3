"""The tutorials' neural networks, learnt with Keras on TensorFlow: a dense one on rows, a small convolutional one.

`learn_dense`: 256, 128, 64 units and a softmax. `learn_conv`: three convolutions with two poolings between them on mel
spectrograms. Both stop when the validation's loss, calibrated, no longer falls, and keep the best state. What comes
back are plain arrays: TensorFlow is needed to learn, never to judge. The same seed gives the same network on the same
machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from embedindex.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from embedindex.classifier_graph import ConvClassifier, DenseClassifier, Layer
from embedindex.errors import EngineMissingError
from embedindex.learners import Step, expanded

UNITS = (256, 128, 64)
FILTERS = (16, 32, 64)
CONV_UNITS = (64,)
POOL = 4
BATCH = 32
MAX_EPOCHS = 100
PREDICTED_AT_ONCE = 128
PATIENCE = 12
# How surely a network speaks is set right afterwards (`embedindex.fitting`): too much of it is no reason to stop.
TEMPERATURES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
LEARNING_RATE = 1e-3


def need_tensorflow(method: str) -> Any:
    """Return the module keras, with a seedable, repeatable TensorFlow behind it.

    Raises:
        EngineMissingError: TensorFlow is not installed.
    """
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import tensorflow
    except ImportError as error:
        raise EngineMissingError(
            f"--method {method} needs TensorFlow: pip install 'embedindex[tensorflow]'; or choose logistic"
        ) from error
    tensorflow.config.experimental.enable_op_determinism()
    return tensorflow.keras


def learn_dense(
    rows: Float32Array,
    truth: BoolArray,
    validation: tuple[Float32Array, BoolArray],
    *,
    seed: int,
    history: list[dict[str, float]],
    step: Step | None = None,
) -> DenseClassifier:
    """Return the dense network learnt from prepared rows (m, columns).

    Args:
        rows: to learn from.
        truth: (m, C).
        validation: rows and truth that tell when to stop.
        seed: of the first weights and the order of the rows.
        history: gets a line for each epoch.
        step: told how many epochs are done, of at most how many.

    Raises:
        EngineMissingError: TensorFlow is not installed.
    """
    keras = need_tensorflow("mlp")
    keras.utils.set_random_seed(seed)
    # The prepared rows are about 1 long; the tutorials' standardised ones are sqrt(columns) long.
    gain = float(np.sqrt(rows.shape[1]))
    given = keras.Input((rows.shape[1],))
    flow = keras.layers.Rescaling(gain)(given)
    dense = [keras.layers.Dense(units, activation="relu") for units in UNITS]
    dense.append(keras.layers.Dense(truth.shape[1], activation="softmax"))
    for layer in dense:
        flow = layer(flow)
    _fit(keras, keras.Model(given, flow), rows, truth, validation, history, step)
    layers = [Layer(*map(np.asarray, layer.get_weights())) for layer in dense]
    first = Layer(np.asarray(layers[0].kernel * gain, np.float32), layers[0].bias)
    return DenseClassifier((first, *layers[1:]))


def learn_conv(
    segments: Float32Array,
    truth: BoolArray,
    validation: tuple[Float32Array, BoolArray],
    *,
    seed: int,
    history: list[dict[str, float]],
    step: Step | None = None,
) -> ConvClassifier:
    """Return the convolutional network learnt from segments (m, frames, bands); arguments as of `learn_dense`."""
    keras = need_tensorflow("cnn")
    keras.utils.set_random_seed(seed)
    mean, deviation = float(segments.mean()), max(float(segments.std()), 1e-6)
    given = keras.Input((*segments.shape[1:], 1))
    flow = keras.layers.Rescaling(1 / deviation, -mean / deviation)(given)
    convolutions = [keras.layers.Conv2D(filters, 3, padding="same", activation="relu") for filters in FILTERS]
    for number, layer in enumerate(convolutions):
        flow = layer(flow)
        if number < 2:
            flow = keras.layers.MaxPooling2D(POOL)(flow)
    # Flat, not averaged: where the cells are, low or high, early or late, is what tells sounds apart.
    flow = keras.layers.Flatten()(flow)
    dense = [keras.layers.Dense(units, activation="relu") for units in CONV_UNITS]
    dense.append(keras.layers.Dense(truth.shape[1], activation="softmax"))
    for layer in dense:
        flow = layer(flow)
    held_out = (validation[0][..., None], validation[1])
    _fit(keras, keras.Model(given, flow), segments[..., None], truth, held_out, history, step)
    weights = [layer.get_weights() for layer in convolutions]
    return ConvClassifier(
        mean,
        1 / deviation,
        tuple(np.asarray(kernel.transpose(3, 2, 0, 1), np.float32) for kernel, _ in weights),
        tuple(np.asarray(bias, np.float32) for _, bias in weights),
        POOL,
        DenseClassifier(tuple(Layer(*map(np.asarray, layer.get_weights())) for layer in dense)),
    )


def _fit(
    keras: Any,
    model: Any,
    inputs: Float32Array,
    truth: BoolArray,
    validation: tuple[Float32Array, BoolArray],
    history: list[dict[str, float]],
    step: Step | None,
) -> None:
    """Train in place until the validation's calibrated loss stays up for `PATIENCE` epochs; the best weights stay."""
    place, label, weight = expanded(truth)
    held, held_label, held_weight = expanded(validation[1])
    held_inputs = validation[0][held]

    class Follow(keras.callbacks.Callback):  # type: ignore[misc, name-defined, unused-ignore]
        best = float("inf")
        best_epoch = 0
        weights: Any = None

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            history.append({name: float(value) for name, value in (logs or {}).items()})
            if step is not None:
                step(epoch + 1, MAX_EPOCHS)
            said = [
                self.model.predict_on_batch(held_inputs[first : first + PREDICTED_AT_ONCE])
                for first in range(0, len(held_inputs), PREDICTED_AT_ONCE)
            ]
            loss = calibrated_loss(np.concatenate(said), held_label, held_weight)
            history[-1]["val_calibrated_loss"] = loss
            if loss < self.best:
                self.best, self.best_epoch, self.weights = loss, epoch, self.model.get_weights()
            elif epoch - self.best_epoch >= PATIENCE:
                self.model.stop_training = True

    follow = Follow()
    model.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(
        inputs[place],
        label,
        sample_weight=weight,
        validation_data=(held_inputs, held_label, held_weight),
        batch_size=BATCH,
        epochs=MAX_EPOCHS,
        verbose=0,
        callbacks=[follow],
    )
    if follow.weights is not None:
        model.set_weights(follow.weights)


def calibrated_loss(chances: Float32Array, label: Int64Array, weight: Float64Array) -> float:
    """Return the mean negative log probability of what rows are, at the best of some temperatures.

    Args:
        chances: (m, C) as the network says them.
        label: (m,) what they are.
        weight: (m,) how much each counts.
    """
    logarithms = np.log(np.maximum(chances, 1e-9)).astype(np.float64)
    losses = []
    for temperature in TEMPERATURES:
        scores = logarithms / temperature
        said = scores[np.arange(len(label)), label] - np.log(np.exp(scores).sum(axis=1))
        losses.append(-float((weight * said).sum() / weight.sum()))
    return min(losses)
