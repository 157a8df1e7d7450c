"""Step time and memory of a program on a device, from its counted jaxpr and a fusion model."""

from refgrad.cost.predict.devices import DEVICES, Device, Efficiency, device
from refgrad.cost.predict.predict import predict
from refgrad.cost.predict.prediction import Prediction

__all__ = ["DEVICES", "Device", "Efficiency", "Prediction", "device", "predict"]
