"""Memory that is handed out again."""

import torch

from torchfbi.engine.scratch import NO_SCRATCH, Scratch


def test_the_same_use_gets_the_same_memory_and_another_use_other_memory() -> None:
    scratch, large = Scratch(), torch.randn(2, 6, 5, 4)
    first, small = scratch.like(large, "p"), scratch.like(large[:1], "p")
    assert first.data_ptr() == small.data_ptr() != scratch.like(large, "gate").data_ptr()
    assert scratch.like(torch.randn(3, 6, 5, 4), "p").shape == (3, 6, 5, 4)
    assert scratch.like(large, "p", torch.float64).dtype == torch.float64


def test_it_is_laid_out_as_the_tensor_is() -> None:
    innermost = torch.randn(2, 6, 5, 4).contiguous(memory_format=torch.channels_last)
    for tensor in (innermost, innermost.contiguous(), innermost[:, :, 0, 0], innermost[0, :, 0, 0]):
        memory = Scratch().like(tensor, "p")
        assert memory is None or (memory.shape, memory.stride()) == (tensor.shape, tensor.stride())
    assert Scratch().like(innermost, "p") is not None


def test_where_there_is_none_operators_allocate() -> None:
    tensor = torch.randn(2, 6, 5, 4)
    assert NO_SCRATCH.like(tensor, "p") is None
    assert Scratch().like(tensor[:1].expand(2, 6, 5, 4), "p") is None  # its entries share memory
    assert Scratch().like(tensor[..., ::2], "p") is None
