"""Collective operations over gloo, for code that asks for `nccl` or `hccl`.

Stands in for HCCL. Data that is only moved arrives bit for bit. Sums of bfloat16 are formed in
float32 and rounded once; HCCL's order of summation, and where it rounds, differ from this. gloo of
torch 2.1 knows neither bfloat16, nor averages, nor `reduce_scatter_tensor`, nor `all_to_all`: those are
built here from what it knows. Everything is done by the time a call returns, `async_op` or not.
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


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _as_row(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _fill(out: torch.Tensor, row: torch.Tensor) -> None:
    """Make `out` of the bytes that a row begins with."""
    out.copy_(row[: _bytes(out)].clone().view(out.dtype).view_as(out))


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
        """Pieces may be of unequal sizes, which every member knows from its `tensor_list`."""
        rows = self._rows(_as_row(tensor), max(map(_bytes, tensor_list)), group)
        for out, row in zip(tensor_list, rows, strict=True):
            _fill(out, row)
        return _finished(async_op)

    def _rows(self, row: torch.Tensor, longest: int, group) -> list[torch.Tensor]:
        """Every member's row of bytes, each with something of no account up to `longest` bytes."""
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(row)] = row
        rows = [torch.empty_like(padded) for _ in range(dist.get_world_size(group))]
        self.gloo["all_gather"](rows, padded, group=group)
        return rows

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

    def all_to_all_single(
        self,
        output,
        input,
        output_split_sizes=None,
        input_split_sizes=None,
        group=None,
        async_op=False,
    ):
        """Pieces along the first dimension, equal ones where no sizes are given."""
        members = dist.get_world_size(group)
        sizes = (sizes or [len(tensor) // members] * members for tensor, sizes in
                 ((input, input_split_sizes), (output, output_split_sizes)))  # fmt: skip
        given, received = (
            list(tensor.split(lengths))
            for tensor, lengths in zip((input, output), sizes, strict=True)
        )
        return self.all_to_all(received, given, group, async_op)

    def all_to_all(self, output_tensor_list, input_tensor_list, group=None, async_op=False):
        """Piece `n` to member `n`, of any sizes: each goes to all, and whose it is takes it.

        A member's pieces go as one row of bytes.
        """
        members, here = dist.get_world_size(group), dist.get_rank(group)
        lengths = torch.tensor([_bytes(piece) for piece in input_tensor_list])
        table = [torch.empty_like(lengths) for _ in range(members)]
        self.gloo["all_gather"](table, lengths, group=group)
        longest = max(int(line.sum()) for line in table)
        rows = self._rows(
            torch.cat([_as_row(piece) for piece in input_tensor_list]), longest, group
        )
        for out, row, line in zip(output_tensor_list, rows, table, strict=True):
            _fill(out, row[int(line[:here].sum()) :])
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
        "all_to_all": ours.all_to_all,
        "all_to_all_single": ours.all_to_all_single,
        "reduce_scatter_tensor": ours.reduce_scatter_tensor,
        "_reduce_scatter_base": ours.reduce_scatter_tensor,
    }
    for module in (dist, dist.distributed_c10d):
        for name, value in names.items():
            setattr(module, name, value)
