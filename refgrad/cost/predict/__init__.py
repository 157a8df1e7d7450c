"""Step time and memory of a program on a device, from its counted jaxpr and a fusion model."""

from refgrad.cost.predict.devices import DEVICES, Device, Efficiency, device
from refgrad.cost.predict.fusion import ROWS, XLA_CPU, FusionModel
from refgrad.cost.predict.predict import predict
from refgrad.cost.predict.prediction import Part, Prediction

__all__ = [
    "DEVICES",
    "ROWS",
    "XLA_CPU",
    "Device",
    "Efficiency",
    "FusionModel",
    "Part",
    "Prediction",
    "device",
    "predict",
]
