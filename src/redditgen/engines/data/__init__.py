"""Token sequences, and the batches and windows cut from them that engines train on."""
