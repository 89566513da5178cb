"""What kernels take on a machine."""
