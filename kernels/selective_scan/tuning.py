"""Block sizes of the Triton kernels; kernels/README.md has the figures behind them."""

MAX_STATES = 16  # More are scanned in pieces: a lane keeps the states of its channel in registers.
TOKENS = 4  # Unrolled together. Where states are saved, one is saved for as many tokens.
