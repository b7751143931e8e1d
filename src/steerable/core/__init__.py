"""The diffusion core: torch and the standard library only, no input or output, no registry.

A process says how data is noised and what the network is asked. A denoiser answers "what was the
clean thing?". A sampler asks that question many times. Steering changes the answer (guidance) or
the place where we stand (constraints).
"""
