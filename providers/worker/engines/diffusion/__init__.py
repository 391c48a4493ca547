"""The parts of the engine `tile-diffusion`."""
