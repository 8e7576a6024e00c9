"""GPUs through NVIDIA's management library, by `pynvml` of the package nvidia-ml-py."""
