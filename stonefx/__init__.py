"""stonefx rewrites PyTorch graphs: linear chains merged, hyperbolic geometry fused."""
