"""A real Triton on this machine, without a container: installed from wheels, started on free ports.

The benchmarks measure it, and the tests run the gateway over it.
"""
