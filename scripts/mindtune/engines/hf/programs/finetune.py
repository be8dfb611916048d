"""One process of a training on several devices; torchrun starts it.

python -m torch.distributed.run … finetune.py JOB.json
"""

import logging
import os
import sys
from pathlib import Path

from mindtune.divergence import Diverged
from mindtune.engines.hf.device import open_device
from mindtune.engines.hf.finetune import train_here
from mindtune.engines.hf.group import Said, read_request
from mindtune.engines.hf.replicas import Replicas
from mindtune.errors import UserError
from transformers.utils import logging as transformers_logging

# The longest wait for another process: the first one checks and writes what takes minutes.
MINUTES = 120


def main(path: str) -> int:
    job, begun = read_request(Path(path))
    own = int(os.environ["LOCAL_RANK"])
    first = os.environ["RANK"] == "0"
    logging.basicConfig(
        stream=sys.stdout, format="%(message)s", level=logging.INFO if first else logging.WARNING
    )
    transformers_logging.set_verbosity_error()  # it warns that others might want its own way of this
    try:
        device = open_device(job.machine, own)
        replicas = Replicas.join(device, MINUTES)
        train_here(job, begun, device, replicas)
    except Diverged as error:
        Said().say(diverged=[error.iteration, error.loss])
        replicas.meet()  # one that ends would end the others, and the first still writes the loss
    except UserError as error:
        Said().say(mistake=str(error))
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
