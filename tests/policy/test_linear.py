"""Linear layers compute what PEFT and bitsandbytes do, or better, and change nothing they keep."""

import contextlib
import copy
import types

import bitsandbytes as bnb
import peft
import pytest
import torch
from policies import linears, move_adapter

from intuitor_lib.policy import linear
from intuitor_lib.policy.adapters import START_ADAPTER, add_start_adapter, reference_policy
from intuitor_lib.policy.linear import fixed_weights, speed_up_linears
from intuitor_lib.policy.loading import load_policy

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


class One(torch.nn.Module):
    """A model of one layer, 4-bit or not, as PEFT meets it."""

    def __init__(self, packed, bias=True, layer=torch.nn.Linear):
        super().__init__()
        torch.manual_seed(0)
        self.is_loaded_in_4bit = packed
        if packed:
            self.layer = bnb.nn.Linear4bit(64, 32, bias=bias, compute_dtype=torch.float32,
                                           compress_statistics=True, quant_type="nf4")  # fmt: skip
            self.layer.support_avx512bf16_for_cpu = False
            self.layer.to("cpu")  # here it is packed
        else:
            self.layer = layer(64, 32, bias=bias)

    def forward(self, x, **kwargs):
        return self.layer(x, **kwargs)


def make(packed=True, bias=True, *, layer=torch.nn.Linear, **settings):
    settings = {"r": 4, "lora_alpha": 6, "lora_dropout": 0.0, **settings}
    config = peft.LoraConfig(target_modules=["layer"], **settings)
    model = peft.get_peft_model(One(packed, bias, layer), config)
    move_adapter(model)
    return model.eval()


def pair(*args, **kwargs):
    """The same model twice, the second one sped up."""
    plain = make(*args, **kwargs)
    fast = copy.deepcopy(plain)
    speed_up_linears(fast)
    return plain, fast


@pytest.fixture
def fused(monkeypatch):
    """How often the fused product was used."""
    calls = []
    original = linear._LoraProduct.apply

    def count(*arguments):
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(linear._LoraProduct, "apply", count)
    return calls


def run(model, x, **kwargs):
    """Output, and gradients of the input and of what is trained."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    out = model(x, **kwargs)
    weights = torch.cos(torch.arange(out.numel())).view(out.shape)
    (out.float() * weights).sum().backward()
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    return out, x.grad, trained


def same(plain, fast, x=None, tolerance=TOLERANCE, **kwargs):
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(2)) if x is None else x
    torch.manual_seed(3)  # of dropout
    expected = run(plain, x, **kwargs)
    torch.manual_seed(3)
    got = run(fast, x, **kwargs)
    torch.testing.assert_close(got, expected, **tolerance)
    return expected


@pytest.mark.parametrize("shape", [(64,), (7, 64), (2, 3, 64), (0, 64)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("packed", [True, False], ids=["nf4", "fp32"])
def test_outputs_and_gradients_are_those_of_the_libraries(packed, bias, shape, fused):
    plain, fast = pair(packed, bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    _, _, trained = same(plain, fast, x)
    assert len(trained) == 2
    assert x.numel() == 0 or all(g.abs().max() > 1e-2 for g in trained.values())
    assert fused == [1]
    # Turned off and on again.
    with plain.disable_adapter(), fast.disable_adapter(), torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x), **TOLERANCE)
    assert fused == [1]
    fast.train()
    same(plain.train(), fast, x)
    assert fused == [1, 1]


def test_rounding_between_layers_stays_small():
    """In float64, where the two can be told apart from a mistake."""
    plain, fast = pair(False)
    x = torch.randn(6, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        run(fast.double(), x), run(plain.double(), x), atol=1e-12, rtol=1e-12
    )


def add_second(model):
    torch.manual_seed(5)  # of its A
    model.add_adapter("second", model.peft_config["default"])
    move_adapter(model, seed=1)


def two_at_once(model):
    add_second(model)
    model.base_model.set_adapter(["default", "second"])


def train_the_base(model):
    model.base_model.model.layer.base_layer.weight.requires_grad_(True)


@pytest.mark.parametrize(
    ("settings", "change", "fits"),
    [
        ({"lora_dropout": 0.5}, lambda model: model.eval(), True),
        ({"lora_dropout": 0.5}, lambda model: model.train(), False),
        ({"use_rslora": True}, None, True),
        ({"use_dora": True}, None, False),
        ({"lora_bias": True, "packed": False}, None, False),
        ({}, add_second, True),
        ({}, lambda model: (add_second(model), model.set_adapter("second")), True),
        ({}, two_at_once, False),
        ({}, lambda model: model.merge_adapter(), False),
        ({"packed": False}, train_the_base, False),
        ({}, lambda model: model.bfloat16(), False),  # its 4-bit layers still compute in fp32
        ({"packed": False}, lambda model: model.bfloat16(), True),
    ],
    ids=[
        *("dropout in eval", "dropout", "rslora", "dora", "lora bias", "one of two", "the other"),
        *("two at once", "merged", "trained base", "bf16 nf4", "bf16"),
    ],
)
@pytest.mark.filterwarnings("ignore:(Merge|Unmerge) lora", "ignore:PEFT with bias")
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_what_it_does_not_know_is_left_to_peft(settings, change, fits, first, fused):
    """`first`: sped up before the change, or after."""
    plain = make(**settings)
    fast = copy.deepcopy(plain)
    if first:
        speed_up_linears(fast)
    for model in (plain, fast):
        if change is not None:
            change(model)
    if not first:
        speed_up_linears(fast)
    dtype = plain.base_model.model.layer.lora_A["default"].weight.dtype
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    torch.manual_seed(3)
    expected = run(plain, x)
    torch.manual_seed(3)
    tolerance = TOLERANCE if dtype == torch.float32 else {"atol": 0.1, "rtol": 2e-2}
    torch.testing.assert_close(run(fast, x), expected, **tolerance)
    assert bool(fused) is fits


@pytest.mark.parametrize("packed", [True, False], ids=["nf4", "fp32"])
def test_autocast_computes_in_bf16_as_peft_does(packed, fused):
    plain, fast = pair(packed)
    x = torch.randn(7, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        same(plain, fast, x, tolerance={"atol": 0.05, "rtol": 2e-2})
        assert fast(x).dtype == plain(x).dtype == torch.bfloat16
    assert fused


@pytest.mark.parametrize("context", [contextlib.nullcontext, fixed_weights])
def test_peft_adds_to_fp32_outputs_of_a_4bit_layer(context, fused):
    """It loses nothing there."""
    plain = make()
    plain.base_model.model.layer.base_layer.compute_dtype = torch.bfloat16
    fast = copy.deepcopy(plain)
    speed_up_linears(fast)
    with context(*[fast] * (context is fixed_weights)):
        x = torch.randn(5, 64)
        assert torch.equal(fast(x), plain(x))
    assert not fused


def test_what_autocast_converts_has_the_dtype_of_autocast():
    plain, fast = pair(False)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad(), fixed_weights(fast):
        assert fast(torch.ones(2, 64)).dtype == plain(torch.ones(2, 64)).dtype == torch.bfloat16


def effect(model, layer, x):
    """The share of a layer's adapter that arrives in its output; the gradients of the adapter."""
    with torch.no_grad(), model.disable_adapter():
        base = model(x).float()
    out = model(x)
    down, up, scaling = linear.plain_adapter(layer)
    with torch.no_grad():
        exact = scaling * (x.float() @ down.float().T) @ up.float().T
    return (((out.float() - base) * exact).sum() / exact.square().sum()).item()


@pytest.mark.parametrize("packed", [True, False], ids=["nf4", "not quantized"])
@pytest.mark.parametrize("way", ["update", "fixed", "packed", "gpu"])
def test_a_small_adapter_is_not_rounded_away_in_bf16(packed, way, monkeypatch):
    model = make(packed).bfloat16()
    layer = model.base_model.model.layer
    if packed:
        layer.base_layer.compute_dtype = torch.bfloat16
    with torch.no_grad():
        layer.lora_A["default"].weight.data = layer.lora_A["default"].weight.data.float()
        layer.lora_B["default"].weight.data = 5e-4 * layer.lora_B["default"].weight.data.float()
    x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert effect(model, layer, x) < 0.3  # PEFT's own
        if way == "packed":
            short = types.SimpleNamespace(available=0)
            monkeypatch.setattr("psutil.virtual_memory", lambda: short)
        speed_up_linears(model)
        if way == "gpu":
            monkeypatch.setattr(linear, "free_gpu_bytes", lambda device: 2**20)
        context = fixed_weights(model) if way in ("fixed", "gpu") else contextlib.nullcontext()
        with context, torch.set_grad_enabled(way in ("update", "packed")):
            assert effect(model, layer, x) == pytest.approx(1, abs=0.1)


def test_keyword_arguments_are_peft_s(fused):
    plain, fast = pair()
    x = torch.randn(2, 64)
    names = {"adapter_names": ["default", "__base__"]}
    with torch.no_grad():
        torch.testing.assert_close(fast(x, **names), plain(x, **names))
        assert not torch.allclose(fast(x, **names)[1], fast(x)[1])


def test_a_layer_that_computes_something_else_is_left_alone():
    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    same(*pair(False, layer=Doubled))


@pytest.mark.filterwarnings("ignore:(Merge|Unmerge) lora")
def test_a_merged_adapter_counts():
    plain, fast = pair()
    x = torch.randn(4, 64)
    before = fast(x)
    for model in (plain, fast):
        model.merge_adapter()
    torch.testing.assert_close(fast(x), plain(x), **TOLERANCE)
    assert (fast(x) - before).abs().mean() < 0.5 * before.abs().mean()  # 4 bits again
    speed_up_linears(fast)
    torch.testing.assert_close(fast(x), plain(x), **TOLERANCE)


def test_without_the_memory_4bit_weights_stay_packed(monkeypatch, fused):
    available = types.SimpleNamespace(available=4 * 64 * 32 * 4 - 1)
    monkeypatch.setattr("psutil.virtual_memory", lambda: available)
    plain, fast = pair()
    assert not any(hasattr(module, "_unpacked") for module in fast.modules())
    same(plain, fast)
    with torch.no_grad(), fixed_weights(fast):
        x = torch.ones(2, 64)
        assert torch.equal(fast(x), plain(x))
    assert not fused
    available.available += 1
    speed_up_linears(fast)  # what a model began with stays
    assert not any(hasattr(module, "_unpacked") for module in fast.modules())
    plain, fast = pair()
    assert any(hasattr(module, "_unpacked") for module in fast.modules())
    same(plain, fast)
    assert fused


def test_4bit_weights_are_unpacked_once(monkeypatch):
    _, fast = pair()
    calls = []
    original = bnb.functional.dequantize_4bit
    monkeypatch.setattr(
        bnb.functional, "dequantize_4bit", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    run(fast, torch.randn(2, 64))
    with fast.disable_adapter():
        fast(torch.randn(2, 64))
    speed_up_linears(fast)
    assert not calls


def test_applied_twice_it_does_nothing_more(fused):
    plain, fast = pair()
    held = [vars(module).get("forward") for module in fast.modules()]
    speed_up_linears(fast)
    assert [vars(module).get("forward") for module in fast.modules()] == held
    same(plain, fast)
    assert fused == [1]


def test_a_copy_computes_with_its_own_weights():
    plain, fast = pair()
    other = copy.deepcopy(fast)
    with torch.no_grad():
        for parameter in fast.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    same(plain, other)
    with torch.no_grad(), fixed_weights(other):
        x = torch.ones(2, 64)
        torch.testing.assert_close(other(x), plain(x), **TOLERANCE)


# Whole policies


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_a_policy_keeps_what_is_saved_and_trained(quantization, tiny_recipe, tmp_path):
    policy = load_policy(tiny_recipe.replace(quantization=quantization)).model
    move_adapter(policy)
    ids = torch.tensor([[10, 20, 30, 40, 50]])
    state = {name: value.clone() for name, value in policy.state_dict().items()}
    names = [(n, p.requires_grad) for n, p in policy.named_parameters()]
    expected = policy.eval()(ids).logits
    policy.save_pretrained(tmp_path / "before")
    speed_up_linears(policy)
    with torch.no_grad(), fixed_weights(policy):
        merged = policy(ids).logits
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(policy(ids).logits, expected, atol=1e-4, rtol=1e-4)
    now = policy.state_dict()
    assert now.keys() == state.keys()
    assert all(torch.equal(now[name], value) for name, value in state.items())
    assert [(n, p.requires_grad) for n, p in policy.named_parameters()] == names
    policy.save_pretrained(tmp_path / "after")
    weights = [
        (tmp_path / when / "adapter_model.safetensors").read_bytes() for when in ("before", "after")
    ]
    assert weights[0] == weights[1]


def test_the_reference_policies_are_those_of_peft(tiny_recipe):
    ids = torch.tensor([[10, 20, 30, 40, 50]])
    plain = load_policy(tiny_recipe).model.eval()
    move_adapter(plain)
    fast = copy.deepcopy(plain)
    speed_up_linears(fast)
    for _ in range(2):
        with torch.no_grad(), reference_policy(plain), reference_policy(fast):
            torch.testing.assert_close(fast(ids).logits, plain(ids).logits, atol=1e-4, rtol=1e-4)
        # The second time, the reference is a copy of the adapter as it was.
        for model in (plain, fast):
            if START_ADAPTER not in model.peft_config:
                add_start_adapter(model)
                move_adapter(model, seed=4)
                speed_up_linears(model if model is fast else fast)
    torch.testing.assert_close(fast(ids).logits, plain(ids).logits, atol=1e-4, rtol=1e-4)


# Adapters merged while sampling


@pytest.mark.parametrize("packed", [True, False], ids=["nf4", "fp32"])
def test_within_the_context_there_is_one_product(packed, fused):
    plain, fast = pair(packed)
    x = torch.randn(3, 64)
    with torch.no_grad():
        expected = plain(x)
        with fixed_weights(fast):
            products = []

            class Products(torch.utils._python_dispatch.TorchDispatchMode):
                def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                    name = func.overloadpacket.__name__
                    products.extend([name] if name in ("mm", "addmm", "matmul") else [])
                    return func(*args, **(kwargs or {}))

            with Products():
                got = fast(x)
            with fast.disable_adapter(), plain.disable_adapter():
                torch.testing.assert_close(fast(x), plain(x), **TOLERANCE)
    assert len(products) == 1
    assert not fused
    torch.testing.assert_close(got, expected, **TOLERANCE)


def test_the_context_is_left_as_it_was_entered(fused):
    plain, fast = pair()
    with pytest.raises(KeyboardInterrupt), fixed_weights(fast):
        raise KeyboardInterrupt
    assert not any(hasattr(module, "_fixed") for module in fast.modules())
    # What is trained next counts the next time.
    with torch.no_grad():
        for model in (plain, fast):
            model.base_model.model.layer.lora_B["default"].weight.mul_(-2)
        with fixed_weights(fast):
            x = torch.ones(2, 64)
            torch.testing.assert_close(fast(x), plain(x), **TOLERANCE)
    same(plain, fast)
    assert fused


def test_what_would_lose_dropout_is_not_fixed():
    fast = make(False, lora_dropout=0.5).train()
    speed_up_linears(fast)
    with fixed_weights(fast):
        assert all(getattr(module, "_fixed", None) is None for module in fast.modules())


def test_4bit_layers_without_an_adapter_are_sped_up_too(tiny_recipe):
    policy = load_policy(tiny_recipe.replace(lora_target_modules=("q_proj",))).model.eval()
    ids = torch.tensor([[10, 20, 30]])
    expected = policy(ids).logits
    speed_up_linears(policy)
    assert all(hasattr(layer, "_unpacked") for layer in linears(policy))
    torch.testing.assert_close(policy(ids).logits, expected, atol=1e-4, rtol=1e-4)


# While sampling on a GPU


@pytest.fixture
def roomy(monkeypatch):
    """The CPU in a GPU's place, with memory to spare; weights stay packed."""
    free = types.SimpleNamespace(bytes=2**20)
    monkeypatch.setattr("psutil.virtual_memory", lambda: types.SimpleNamespace(available=0))
    monkeypatch.setattr(linear, "free_gpu_bytes", lambda device: free.bytes)
    return free


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "autocast"])
@pytest.mark.parametrize("change", [None, two_at_once, lambda model: model.merge_adapter()])
@pytest.mark.filterwarnings("ignore:(Merge|Unmerge) lora")
def test_fixed_layers_compute_the_same_and_are_as_before(roomy, autocast, change):
    model, x = make(), torch.randn(4, 3, 64, generator=torch.Generator().manual_seed(2))
    if change is not None:
        change(model)
    tolerance = {"atol": 0.05, "rtol": 0.02} if autocast else TOLERANCE
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = model(x)
        speed_up_linears(model)
        held = [dict(vars(module)) for module in model.modules()]
        with fixed_weights(model) as fixed:
            assert fixed
            torch.testing.assert_close(model(x), expected, **tolerance)
            with model.disable_adapter():
                without = model(x)
        with model.disable_adapter():
            torch.testing.assert_close(without, model(x), **tolerance)
    assert [dict(vars(module)).keys() for module in model.modules()] == [h.keys() for h in held]


def test_weights_are_unpacked_once_and_only_where_they_fit(roomy, monkeypatch):
    model, calls, x = make(), [], torch.ones(2, 64)
    speed_up_linears(model)
    original = bnb.functional.dequantize_4bit
    monkeypatch.setattr(
        bnb.functional, "dequantize_4bit", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    needed = 4 * (64 + 4) * 32  # the adapter is of rank 4
    for reserve, fits in ((2**20 - needed, True), (2**20 - needed + 1, False)):
        with torch.no_grad(), fixed_weights(model, reserve=reserve) as fixed:
            assert fixed is fits
            assert ("_fixed" in vars(model.base_model.model.layer)) is fits
            model(x)
            model(x)
    assert len(calls) == 1


@pytest.mark.parametrize("change", [None, two_at_once])
def test_4bit_layers_whose_adapter_peft_computes_are_unpacked_on_a_gpu(roomy, change):
    model = make(**({} if change else {"use_dora": True}))
    if change:
        change(model)
    speed_up_linears(model)
    with fixed_weights(model):
        assert all(hasattr(layer, "_unpacked") for layer in linears(model))


def test_4bit_layers_without_an_adapter_are_unpacked_on_a_gpu(roomy, tiny_recipe):
    policy = load_policy(tiny_recipe.replace(lora_target_modules=("q_proj",))).model.eval()
    ids = torch.tensor([[10, 20, 30]])
    expected = policy(ids).logits
    roomy.bytes = 2**30
    with torch.no_grad(), fixed_weights(policy):
        assert all(hasattr(layer, "_unpacked") for layer in linears(policy))
        torch.testing.assert_close(policy(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert not any(hasattr(layer, "_unpacked") for layer in linears(policy))


def test_an_interrupt_leaves_the_layers_as_they_were(roomy):
    model = make()
    held = [{*vars(module)} for module in model.modules()]
    with pytest.raises(KeyboardInterrupt), fixed_weights(model):
        raise KeyboardInterrupt
    assert [{*vars(module)} for module in model.modules()] == held
