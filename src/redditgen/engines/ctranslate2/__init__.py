"""Sampling on the CPU with CTranslate2, in this process or by ray's workers."""
