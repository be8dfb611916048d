"""apex.multi_tensor_apply."""


def multi_tensor_applier(op, noop_flag_buffer, tensor_lists, *args):
    """Apply `op` to lists of tensors."""
    return op(noop_flag_buffer, tensor_lists, *args)
