"""Log-probabilities in chunks, their gradient found in the forward pass, against plain torch."""

import pytest
import torch
from models import LargestTensor, lora, make_model

from intuitor_lib.certainty.head import Head, backbone_and_head, head_log_probs

VOCABULARY, WIDTH, ROWS = 97, 8, 7


def make(
    dtype=torch.float64, *, bias=False, rows=ROWS, vocabulary=VOCABULARY, scale=1.0, softcap=None
):
    torch.manual_seed(1)
    linear = torch.nn.Linear(WIDTH, vocabulary, bias=bias).to(dtype).requires_grad_(False)
    linear.weight.mul_(3)
    hidden = torch.randn(rows, WIDTH, dtype=dtype, requires_grad=True)
    head = Head(linear.weight, linear.bias, scale, softcap)
    return hidden, head, torch.randint(vocabulary, (rows,))


def by_definition(hidden, head, ids, *, temperature=1.0):
    """Log-probabilities and entropies in float64, from the whole matrix of logits."""
    bias = 0 if head.bias is None else head.bias.double()
    logits = head.scale * (hidden.double() @ head.weight.double().T + bias)
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    log_p = torch.log_softmax(logits / temperature, -1)
    return log_p.gather(-1, ids[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


@pytest.mark.parametrize("chunk_size", [1, 97, 3 * 97 + 5, 2**25])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.3])
@pytest.mark.parametrize(
    ("logit_scale", "softcap"), [(1.0, None), (0.3, None), (1.0, 2.0), (2.5, 4.0)]
)
def test_values_and_gradient_in_float64(
    chunk_size, bias, temperature, logit_scale, softcap, monkeypatch
):
    monkeypatch.setattr("intuitor_lib.certainty.head.CHUNK_LOGITS", chunk_size)
    hidden, head, ids = make(bias=bias, scale=logit_scale, softcap=softcap)
    settings = {"temperature": temperature}
    got, entropies = head_log_probs(hidden, head, ids, **settings)
    expected, expected_entropies = by_definition(hidden, head, ids, **settings)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(entropies, expected_entropies, atol=1e-12, rtol=1e-12)
    assert not entropies.requires_grad
    upstream = torch.linspace(-2, 3, len(ids), dtype=torch.float64)
    (ours,) = torch.autograd.grad(got, hidden, upstream)
    (theirs,) = torch.autograd.grad(expected, hidden, upstream)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 4e-2), (torch.float16, 5e-3)]
)
def test_in_other_types(dtype, tolerance):
    hidden, head, ids = make(dtype)
    got, entropies = head_log_probs(hidden, head, ids, temperature=0.9)
    assert got.dtype == entropies.dtype == torch.float32
    expected, expected_entropies = by_definition(hidden, head, ids, temperature=0.9)
    torch.testing.assert_close(got.double(), expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(entropies.double(), expected_entropies, atol=tolerance, rtol=0)
    (ours,) = torch.autograd.grad(got.sum(), hidden)
    (theirs,) = torch.autograd.grad(expected.sum(), hidden)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def test_hidden_states_of_another_type_get_their_gradient_back():
    hidden, head, ids = make(torch.float32)
    got, _ = head_log_probs(hidden.bfloat16(), head, ids)
    got.sum().backward()
    expected, _ = by_definition(hidden, head, ids)
    (theirs,) = torch.autograd.grad(expected.sum(), hidden)
    torch.testing.assert_close(hidden.grad, theirs, atol=3e-2, rtol=3e-2)


def test_large_logits_stay_finite():
    hidden, head, ids = make(torch.float32)
    got, entropies = head_log_probs(hidden * 3e3, head, ids)
    assert got.isfinite().all()
    assert entropies.min() > -1e-2
    (gradient,) = torch.autograd.grad(got.sum(), hidden)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_chunk_bounds_the_memory_and_no_logits_are_kept(softcap, monkeypatch):
    vocabulary, rows = 4096, 64
    monkeypatch.setattr("intuitor_lib.certainty.head.CHUNK_LOGITS", 9 * vocabulary)
    hidden, head, ids = make(torch.float32, rows=rows, vocabulary=vocabulary, softcap=softcap)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with LargestTensor() as largest:
            got, _ = head_log_probs(hidden, head, ids)
        assert largest.numel == 9 * vocabulary
        assert kept == [rows * WIDTH]  # the gradient itself, as large as the hidden states
        with LargestTensor() as largest:
            got.sum().backward()
        assert largest.numel <= rows * WIDTH
        kept.clear()
        by_definition(hidden, head, ids)
        assert max(kept) == rows * vocabulary  # the measurement sees logits where they are kept


def test_without_a_gradient_none_is_computed():
    hidden, head, ids = make()
    products = []

    class Products(LargestTensor):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            products.append(func.overloadpacket is torch.ops.aten.mm)
            return super().__torch_dispatch__(func, types, args, kwargs)

    with Products():
        got, _ = head_log_probs(hidden.detach(), head, ids)
    assert not got.requires_grad
    assert sum(products) == 1
    products.clear()
    with Products():
        head_log_probs(hidden, head, ids)
    assert sum(products) == 2


def test_no_rows():
    hidden, head, _ = make()
    log_probs, entropies = head_log_probs(hidden[:0], head, torch.empty(0, dtype=torch.long))
    assert log_probs.shape == entropies.shape == (0,)


def test_a_trained_head_is_refused():
    hidden, head, ids = make(bias=True)
    for parameter in (head.weight, head.bias):
        parameter.requires_grad_(True)
        with pytest.raises(ValueError, match=r"the LM head is trained.*freeze it"):
            head_log_probs(hidden, head, ids)
        parameter.requires_grad_(False)


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "Cohere", "Granite"])
def test_the_parts_of_a_model_give_its_own_log_probabilities(family):
    model = lora(make_model(family)).eval()
    base, backbone, head = backbone_and_head(model)
    assert base is model.get_base_model()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    got, _ = head_log_probs(
        backbone(ids).last_hidden_state[0, :-1], head, ids[0, 1:], temperature=0.8
    )
    log_p = torch.log_softmax(model(ids).logits[0, :-1].double() / 0.8, -1)
    expected = log_p.gather(-1, ids[0, 1:, None])[:, 0].float()
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)
    weights = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(got.sum(), weights)
    theirs = torch.autograd.grad(expected.sum(), weights)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("Llama", {}, (1.0, None)),
        ("Gemma2", {}, (1.0, 3.0)),
        ("Gemma2", {"final_logit_softcapping": None}, (1.0, None)),
        ("Cohere", {}, (0.25, None)),
        ("Granite", {"logits_scaling": 8.0}, (0.125, None)),
        ("HyperCLOVAX", {"logits_scaling": 8.0}, (8.0, None)),
        ("Mpt", {}, (1.0, None)),
    ],
)
def test_scale_and_soft_cap_are_those_of_the_configuration(family, settings, expected):
    head = backbone_and_head(make_model(family, **settings))[2]
    assert (head.scale, head.softcap) == expected


def test_output_multiplier_scales_the_logits():
    model = make_model("Llama")
    model.config.output_multiplier = 0.2
    assert backbone_and_head(model)[2][2:] == (0.2, None)
    assert backbone_and_head(make_model("Llama"))[2][2:] == (1.0, None)
