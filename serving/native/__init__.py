"""The decoder in C for the CPU: compiled on the machine it runs on, for the common families."""
