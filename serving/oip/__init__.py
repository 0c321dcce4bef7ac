"""The Open Inference Protocol v2 on the embedded engine: raw tensors for whoever speaks it, as to Triton.

Its models are the graphs of the repository, as on a Triton that serves the same folder. `inference` is the
service, which `serving.transports` has over gRPC and HTTP.
"""
