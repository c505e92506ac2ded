"""Token sequences, and the batches and windows that engines train on."""
