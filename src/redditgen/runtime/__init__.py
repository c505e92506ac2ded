"""What every stage uses of the system: ray, HTTP, signals, progress, memory, imports, libraries' logs."""
