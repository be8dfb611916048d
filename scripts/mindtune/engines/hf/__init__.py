"""The `hf` engine: transformers and torch, on a CPU or any torch device."""

import os

# Before torch loads OpenMP: let idle threads sleep instead of spin. Spinning threads of two
# processes on the same cores keep each other from working (a training was seen to take 15 times
# as long beside another); alone the difference is within the noise.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
