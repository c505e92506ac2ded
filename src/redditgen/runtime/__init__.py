"""System services that the stages share: ray, HTTP, downloads, signals, progress, memory, imports, library logs."""
