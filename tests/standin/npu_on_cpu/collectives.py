"""Collective operations over gloo, for code that asks for `nccl` or `hccl`.

Stands in for HCCL. Data that is only moved arrives bit for bit. Sums of bfloat16 are formed in
float32 and rounded once; HCCL's order of summation, and where it rounds, differ from this. gloo of
torch 2.1 knows neither bfloat16, nor averages, nor `reduce_scatter_tensor`: those are built here from
what it knows. Everything is done by the time a call returns, `async_op` or not.
"""

import functools
import inspect

import torch
import torch.distributed as dist

BACKENDS = ("nccl", "hccl", None)
NARROW = (torch.bfloat16, torch.float16)


class Done:
    """The handle of an operation that is finished."""

    def wait(self, *args, **kwargs) -> bool:
        return True

    def is_completed(self) -> bool:
        return True


def _over_gloo(function):
    """A function that chooses a backend: gloo it is, and without HCCL's options."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        if call.arguments.get("backend") in BACKENDS:
            call.arguments["backend"] = "gloo"
        call.arguments.pop("pg_options", None)
        return function(*call.args, **call.kwargs)

    return wrapper


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8) if tensor.dtype in NARROW else tensor


def _finished(async_op: bool) -> Done | None:
    return Done() if async_op else None


class Collectives:
    """The operations that gloo has not, or not for every type, on top of those it has."""

    def __init__(self) -> None:
        self.gloo = {
            name: getattr(dist, name)
            for name in ("all_gather", "all_reduce", "barrier", "broadcast")
        }

    def all_reduce(self, tensor, op=dist.ReduceOp.SUM, group=None, async_op=False):
        members = dist.get_world_size(group)
        if members > 1:
            average = op == dist.ReduceOp.AVG
            wide = tensor.float() if tensor.dtype in NARROW else tensor.contiguous()
            self.gloo["all_reduce"](wide, op=dist.ReduceOp.SUM if average else op, group=group)
            if average:
                wide.div_(members)
            if wide is not tensor:
                tensor.copy_(wide)
        return _finished(async_op)

    def broadcast(self, tensor, src, group=None, async_op=False):
        if dist.get_world_size(group) > 1:
            content = _as_bytes(tensor)
            self.gloo["broadcast"](content, src, group=group)
            if content is not tensor:
                tensor.copy_(content.view(tensor.dtype).view_as(tensor))
        return _finished(async_op)

    def all_gather(self, tensor_list, tensor, group=None, async_op=False):
        content = _as_bytes(tensor)
        parts = [torch.empty_like(content) for _ in tensor_list]
        self.gloo["all_gather"](parts, content.contiguous(), group=group)
        for out, part in zip(tensor_list, parts, strict=True):
            out.copy_(part.view(tensor.dtype).view_as(out))
        return _finished(async_op)

    def all_gather_into_tensor(self, output_tensor, input_tensor, group=None, async_op=False):
        parts = [torch.empty_like(input_tensor) for _ in range(dist.get_world_size(group))]
        self.all_gather(parts, input_tensor, group=group)
        output_tensor.view(-1).copy_(torch.cat([part.view(-1) for part in parts]))
        return _finished(async_op)

    def reduce_scatter_tensor(
        self, output, input, op=dist.ReduceOp.SUM, group=None, async_op=False
    ):
        whole = input.detach().reshape(-1).clone()
        self.all_reduce(whole, op=op, group=group)
        part = whole.chunk(dist.get_world_size(group))[dist.get_rank(group)]
        output.view(-1).copy_(part)
        return _finished(async_op)

    def barrier(self, group=None, async_op=False, device_ids=None):
        return self.gloo["barrier"](group=group, async_op=async_op)


def install() -> None:
    """Replace the operations in torch.distributed, under their old names too."""
    ours = Collectives()
    names = {
        "init_process_group": _over_gloo(dist.init_process_group),
        "new_group": _over_gloo(dist.new_group),
        "all_gather": ours.all_gather,
        "all_reduce": ours.all_reduce,
        "barrier": ours.barrier,
        "broadcast": ours.broadcast,
        "all_gather_into_tensor": ours.all_gather_into_tensor,
        "_all_gather_base": ours.all_gather_into_tensor,
        "reduce_scatter_tensor": ours.reduce_scatter_tensor,
        "_reduce_scatter_base": ours.reduce_scatter_tensor,
    }
    for module in (dist, dist.distributed_c10d):
        for name, value in names.items():
            setattr(module, name, value)
