"""Policies as files that leave distppo: normalizer, network, clipping and rescaling as one short program over arrays.

`program` says what a policy computes; `numpy_file`, `onnx_file` and `torch_file` write that down; `numpy_loader` is all that the numpy form
needs to run, and can be copied.
"""
