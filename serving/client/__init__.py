"""Clients of the gateway over gRPC, with PIL images and numpy arrays in and out."""

from serving.client.answers import Images, Progress
from serving.client.async_client import AsyncClient
from serving.client.errors import AtelierError
from serving.client.requests import Arithmetic, Interpolation, Traversal
from serving.client.sync_client import Client

__all__ = [
    "Arithmetic",
    "AsyncClient",
    "AtelierError",
    "Client",
    "Images",
    "Interpolation",
    "Progress",
    "Traversal",
]
