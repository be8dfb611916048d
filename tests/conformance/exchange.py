"""One of several processes that exchange tensors by the stand-in's collectives, and check them.

exchange.py RANK MEMBERS STORE    (STORE: a path that all of them name)
"""

import sys

import torch
import torch.distributed as dist
from npu_on_cpu.collectives import Collectives

TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.int64)
WIDTH = 5


def piece(sender: int, receiver: int, dtype: torch.dtype) -> torch.Tensor:
    """What one member has for another; of other sizes for each pair, and of none for some."""
    rows = (sender + 2 * receiver) % 4
    first = 100 * sender + 10 * receiver
    return torch.arange(first, first + rows * WIDTH).view(rows, WIDTH).to(dtype)


def check(collectives: Collectives, rank: int, members: int, dtype: torch.dtype) -> None:
    given = [piece(rank, other, dtype) for other in range(members)]
    wanted = [piece(other, rank, dtype) for other in range(members)]
    received = [torch.full_like(tensor, -1) for tensor in wanted]
    collectives.all_to_all(received, given)
    assert all(map(torch.equal, received, wanted))

    whole = torch.full_like(torch.cat(wanted), -1)
    sizes = [[len(tensor) for tensor in tensors] for tensors in (wanted, given)]
    collectives.all_to_all_single(whole, torch.cat(given), *sizes)
    assert torch.equal(whole, torch.cat(wanted))

    even = torch.arange(members * 2 * WIDTH).view(members * 2, WIDTH).to(dtype) + rank
    out = torch.empty_like(even)
    collectives.all_to_all_single(out, even)
    assert torch.equal(out, torch.cat([even[2 * rank : 2 * rank + 2] - rank + n
                                       for n in range(members)]))  # fmt: skip

    parts = [torch.full_like(piece(other, 1, dtype), -1) for other in range(members)]
    collectives.all_gather(parts, piece(rank, 1, dtype))
    assert all(torch.equal(part, piece(n, 1, dtype)) for n, part in enumerate(parts))


def main() -> None:
    rank, members, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=members)
    collectives = Collectives()
    for dtype in TYPES:
        check(collectives, rank, members, dtype)
    dist.destroy_process_group()
    print("equal")


if __name__ == "__main__":
    main()
