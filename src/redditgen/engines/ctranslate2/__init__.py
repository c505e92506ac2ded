"""Sampling on the CPU with CTranslate2, in this process or on ray workers."""
