"""Adapters, each against the library itself: the same answers, and the same picture as its own loop draws."""

import copy
import importlib.util
from types import SimpleNamespace

import pytest
import torch

from sampler.adapters import adapted, of_denoising_diffusion, of_diffusers
from sampler.errors import UsageError
from sampler.generate import sample
from sampler.model_check import check
from sampler.models import load_model
from sampler.noise import PhiloxNoise
from sampler.schedule import linear
from sampler.sets.identity import weights_digest
from sampler.trajectory import ancestral, ddim

diffusers = pytest.importorskip("diffusers")
SAME_PICTURE = 1e-4  # both in float32, of numbers in about [-1, 1]


def small_unet(labels=None):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), attention_head_dim=8,
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), num_class_embeds=labels,
    ).eval()  # fmt: skip


def small_dit():
    torch.manual_seed(0)
    dit = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        patch_size=2, num_embeds_ada_norm=6, norm_num_groups=4,
    ).eval()  # fmt: skip
    for parameter in dit.parameters():  # its last layers start at zero
        torch.nn.init.normal_(parameter, std=0.05)
    return dit


def small_text_unet():
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12, attention_head_dim=4,
    ).eval()  # fmt: skip


def their_loop(scheduler, predict, x, noise, monkeypatch, steps, **options):
    """As a pipeline of diffusers loops, on our noise."""
    import diffusers.schedulers.scheduling_ddpm as theirs

    scheduler.set_timesteps(steps)
    like = x
    for t in scheduler.timesteps:
        monkeypatch.setattr(theirs, "randn_tensor", lambda *_, t=t, **__: noise.draw(int(t), like))
        with torch.no_grad():
            x = scheduler.step(predict(x, t), t, x, **options).prev_sample
    return x, scheduler.timesteps.tolist()


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_a_unet_draws_what_diffusers_draws(prediction, monkeypatch):
    unet, noise = small_unet(), PhiloxNoise(3, range(2))
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction)
    model = of_diffusers.model(unet, scheduler)
    start = noise.draw(1000, torch.empty(2, 1, 8, 8))
    theirs, timesteps = their_loop(scheduler, lambda x, t: unet(x, t).sample, start, noise, monkeypatch, 20)
    path = ancestral(model.schedule, timesteps, prediction=model.prediction, clip=model.clip)
    ours = sample(model, path, count=2, noise=noise, progress=False).images
    assert (ours - theirs).abs().max() < SAME_PICTURE
    assert theirs.std() > 0.05


def test_a_dit_keeps_the_first_half_of_its_channels_and_knows_its_null_label(monkeypatch):
    dit, noise, labels = small_dit(), PhiloxNoise(3, range(2)), torch.tensor([1, 5])
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
    model = of_diffusers.model(dit, scheduler)
    assert (model.shape, model.classes, model.null_label, model.clip) == ((4, 8, 8), 6, 6, None)

    def predict(x, t):
        both = dit(torch.cat([x, x]), timestep=t.expand(4), class_labels=torch.cat([labels, labels * 0 + 6])).sample
        conditional, unconditional = both[:, :4].chunk(2)
        return unconditional + 2.5 * (conditional - unconditional)

    start = noise.draw(1000, torch.empty(2, 4, 8, 8))
    theirs, timesteps = their_loop(scheduler, predict, start, noise, monkeypatch, 10)
    path = ddim(model.schedule, timesteps, prediction=model.prediction, clip=model.clip)
    ours = sample(model, path, labels=labels, guidance=2.5, noise=noise, progress=False).images
    assert (ours - theirs).abs().max() < SAME_PICTURE * theirs.abs().max()


def test_a_unet_on_embeddings_takes_labels_as_rows_of_their_table():
    unet = small_text_unet()
    table = torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(1))
    model = of_diffusers.model(unet, diffusers.DDIMScheduler(clip_sample=False), embeddings=table)
    assert (model.classes, model.null_label) == (3, 3)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([700, 700])
    with torch.no_grad():
        expected = unet(x, t, table[[2, 3]]).sample
        assert torch.equal(model.network(x, t, torch.tensor([2, 3])), expected)
    assert check(model).notes == ()
    with pytest.raises(UsageError, match="conditioned on embeddings: write a factory"):
        of_diffusers.model(unet, diffusers.DDIMScheduler())
    with pytest.raises(UsageError, match=r"embeddings are \[5, 12\]"):
        of_diffusers.model(unet, diffusers.DDIMScheduler(), embeddings=table[0])


def test_labels_of_a_unet_with_and_without_one_for_none():
    unet, scheduler = small_unet(labels=4), diffusers.DDPMScheduler()
    plain = of_diffusers.model(unet, scheduler)
    assert (plain.classes, plain.guidable) == (4, False)
    path = ddim(plain.schedule, (900, 400))
    assert sample(plain, path, labels=[3, 0], progress=False).images.isfinite().all()
    with pytest.raises(UsageError, match="has no label for 'no label'"):
        sample(plain, path, labels=[3, 0], guidance=2.0, progress=False)
    guided = of_diffusers.model(unet, scheduler, null_label=3)
    assert (guided.classes, guided.null_label, guided.guidable) == (3, 3, True)
    with pytest.raises(UsageError, match="must be the last of the 4"):
        of_diffusers.model(unet, scheduler, null_label=1)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_schedules_are_read_from_the_scheduler(schedule):
    scheduler = diffusers.DDIMScheduler(
        beta_schedule=schedule, beta_start=1e-3, beta_end=0.015, num_train_timesteps=400
    )
    ours = of_diffusers.model(small_unet(), scheduler).schedule
    assert ours.steps == 400
    torch.testing.assert_close(ours.alphas_cumprod.float(), scheduler.alphas_cumprod, rtol=1e-4, atol=1e-6)


def test_zero_terminal_snr_is_taken_where_the_arithmetic_allows_it(monkeypatch):
    unet, noise = small_unet(), PhiloxNoise(3, range(2))
    options = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    with pytest.raises(UsageError, match=r"zero terminal SNR .* x0 cannot be computed from ε"):
        of_diffusers.model(unet, diffusers.DDPMScheduler(**options))
    scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", set_alpha_to_one=True, **options)
    model = of_diffusers.model(unet, scheduler)
    assert float(model.schedule.alphas_cumprod[-1]) == 0
    start = noise.draw(1000, torch.empty(2, 1, 8, 8))
    theirs, timesteps = their_loop(
        scheduler, lambda x, t: unet(x, t).sample, start, noise, monkeypatch, 10, use_clipped_model_output=True
    )
    assert timesteps[0] == 999
    ours = sample(model, ddim(model.schedule, timesteps, prediction="v"), count=2, noise=noise, progress=False).images
    assert (ours - theirs).abs().max() < SAME_PICTURE


def test_what_a_scheduler_says_that_we_do_not_know():
    with pytest.raises(UsageError, match="thresholds x0"):
        of_diffusers.model(small_unet(), diffusers.DDPMScheduler(thresholding=True))
    with pytest.raises(UsageError, match="has no betas"):
        of_diffusers.model(small_unet(), diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(UsageError, match="UNet1DModel has no adapter"):
        of_diffusers.model(diffusers.UNet1DModel(sample_size=8), diffusers.DDPMScheduler())


def test_a_saved_pipeline_and_a_saved_network_load_by_path(tmp_path):
    unet, scheduler = small_unet(), diffusers.DDIMScheduler(prediction_type="v_prediction", num_train_timesteps=300)
    made = diffusers.DDIMPipeline(unet, scheduler)
    made.save_pretrained(tmp_path / "pipeline")
    unet.save_pretrained(tmp_path / "network")
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([7, 7])
    for folder, steps in (("pipeline", 300), ("network", 1000)):
        model = load_model(str(tmp_path / folder))
        with torch.no_grad():
            assert torch.equal(model.network(x, t, None), unet(x, t).sample)
        assert model.schedule.steps == steps
    assert load_model(str(tmp_path / "pipeline")).prediction == adapted(made, "x").prediction
    (tmp_path / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    with pytest.raises(UsageError, match="cannot be loaded by diffusers"):
        load_model(str(tmp_path / "pipeline"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no folder saved by diffusers"):
        load_model(str(tmp_path / "empty"))


def test_latents_are_decoded_outside_the_loop(tmp_path):
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8,
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",),
    ).eval()  # fmt: skip
    model = of_diffusers.model(small_dit(), diffusers.DDIMScheduler(clip_sample=False), vae=vae)
    latents = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        expected = vae.decode(latents / vae.config.scaling_factor).sample
    torch.testing.assert_close(model.pictures(latents), expected)
    assert expected.shape[1] == 3
    before = weights_digest(model)
    vae.register_to_config(scaling_factor=0.5)
    assert weights_digest(model) != before, "the same weights, and other pictures"


ddp = pytest.mark.skipif(
    importlib.util.find_spec("denoising_diffusion_pytorch") is None,
    reason="denoising-diffusion-pytorch is not installed",
)


@pytest.fixture
def theirs():
    from bench.peers import denoising_diffusion

    return denoising_diffusion()


@ddp
@pytest.mark.parametrize("objective", ["pred_noise", "pred_x0", "pred_v"])
@pytest.mark.parametrize("beta_schedule", ["linear", "sigmoid"])
def test_a_gaussian_diffusion_draws_what_its_own_loop_draws(theirs, objective, beta_schedule, monkeypatch):
    torch.manual_seed(0)
    unet = theirs.Unet(dim=8, dim_mults=(1, 2), channels=1, flash_attn=False)
    diffusion = theirs.GaussianDiffusion(
        unet, image_size=8, timesteps=30, beta_schedule=beta_schedule, objective=objective, auto_normalize=False
    ).eval()
    model, noise = adapted(diffusion, "x"), PhiloxNoise(3, range(2))
    assert (model.shape, model.schedule.steps, model.classes) == ((1, 8, 8), 30, 0)
    steps = iter(range(30, 0, -1))  # the noise of step t is asked for at t, and the start's as of step 30
    like = torch.empty(2, 1, 8, 8)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: noise.draw(next(steps), like))
    monkeypatch.setattr(torch, "randn_like", lambda x: noise.draw(next(steps), x))
    expected = diffusion.p_sample_loop((2, 1, 8, 8))
    monkeypatch.undo()
    path = ancestral(model.schedule, prediction=model.prediction, clip=model.clip)
    ours = sample(model, path, count=2, noise=noise, progress=False).images
    assert (ours - expected).abs().max() < SAME_PICTURE


@ddp
def test_its_classes_have_a_label_for_none(theirs):
    from denoising_diffusion_pytorch import classifier_free_guidance as guided

    torch.manual_seed(0)
    unet = guided.Unet(dim=8, dim_mults=(1, 2), channels=1, num_classes=3).eval()
    model = adapted(guided.GaussianDiffusion(unet, image_size=8, timesteps=20), "x")
    assert (model.classes, model.null_label) == (3, 3)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([4, 4])
    with torch.no_grad():
        torch.testing.assert_close(
            model.network(x, t, torch.tensor([2, 1])), unet(x, t, torch.tensor([2, 1]), cond_drop_prob=0.0)
        )
        torch.testing.assert_close(
            model.network(x, t, torch.tensor([3, 3])), unet(x, t, torch.tensor([0, 0]), cond_drop_prob=1.0)
        )
    assert check(model).notes == ()


LATE = torch.tensor([999, 998, 997])  # in bfloat16 all three are 1000


def unet_with(theirs, classes, **options):
    from denoising_diffusion_pytorch import classifier_free_guidance as guided

    torch.manual_seed(0)
    library, more = (guided, {"num_classes": classes}) if classes else (theirs, {})
    unet = library.Unet(dim=8, dim_mults=(1, 2), channels=1, **more, **options).eval()
    return unet, lambda: library.GaussianDiffusion(unet, image_size=8, timesteps=1000)


@ddp
@pytest.mark.parametrize("classes", [0, 3])
def test_its_time_embedding_is_cast_with_the_network(theirs, classes):
    unet, around = unet_with(theirs, classes)
    modules, before = list(unet.modules()), {name: value.clone() for name, value in unet.state_dict().items()}
    network = adapted(around(), "x").network
    x, labels = torch.randn(3, 1, 8, 8), torch.tensor([2, 1, 0]) if classes else None
    with torch.no_grad():
        expected = unet(x, LATE, labels, cond_drop_prob=0.0) if classes else unet(x, LATE)
        assert torch.equal(network(x, LATE, labels), expected)
        for dtype, near in ((torch.float64, 2e-6), (torch.float16, 5e-3), (torch.bfloat16, 5e-2)):
            found = copy.deepcopy(network).to(dtype)(x.to(dtype), LATE, labels)
            assert found.dtype == dtype
            torch.testing.assert_close(found.float(), expected, rtol=0, atol=near)
    assert list(unet.modules()) == modules
    for name, value in unet.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


@ddp
@pytest.mark.parametrize("classes", [0, 3])
def test_timesteps_are_never_rounded_to_half(theirs, classes):
    options = {} if classes else {"sinusoidal_pos_emb_theta": 5000}
    unet, around = unet_with(theirs, classes, **options)
    network = adapted(around(), "x").network.network

    def embedded(dtype):
        """What the first layer is given."""
        found = []
        cast = copy.deepcopy(network.time_mlp).to(dtype)
        cast.layers[0].register_forward_pre_hook(lambda _, given: found.append(given[0]))
        cast(LATE)
        return found[0]

    in_float32 = unet.time_mlp[0](LATE)
    assert torch.equal(embedded(torch.float32), in_float32)
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(embedded(dtype), in_float32.to(dtype))  # rounded once, at the end
    angles = LATE.double()[:, None] * options.get("sinusoidal_pos_emb_theta", 10_000) ** (-torch.arange(4).double() / 3)
    exact = torch.cat([angles.sin(), angles.cos()], dim=1)
    torch.testing.assert_close(embedded(torch.float64), exact, rtol=0, atol=1e-12)


@ddp
def test_its_time_embedding_compiles_to_one_graph(theirs):
    _, around = unet_with(theirs, 0)
    cast = copy.deepcopy(adapted(around(), "x").network.network.time_mlp).double()
    with torch.no_grad():
        assert torch.equal(torch.compile(cast, backend="eager", fullgraph=True)(LATE), cast(LATE))


@ddp
def test_what_its_unet_learns_later_is_in_the_model(theirs):
    unet, around = unet_with(theirs, 0)
    network, x = adapted(around(), "x").network, torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        before = network(x, LATE)
        for parameter in unet.time_mlp.parameters():
            parameter.add_(0.1)
        assert torch.equal(network(x, LATE), unet(x, LATE))
        assert not torch.equal(network(x, LATE), before)


@ddp
def test_a_time_embedding_of_ones_own_is_left_as_it_is(theirs):
    unet, around = unet_with(theirs, 0)
    unet.time_mlp[0].forward = lambda t: t[:, None] / torch.arange(1.0, 9.0)
    assert adapted(around(), "x").network.network is unet


@ddp
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("option", ["learned_sinusoidal_cond", "random_fourier_features"])
def test_its_own_diffusion_refuses_the_other_time_embeddings(theirs, classes, option):
    with pytest.raises(AssertionError):  # so there is nothing to adapt
        unet_with(theirs, classes, **{option: True})[1]()


@ddp
def test_self_conditioning_is_refused(theirs):
    unet = theirs.Unet(dim=8, dim_mults=(1, 2), channels=1, self_condition=True)
    with pytest.raises(UsageError, match="conditioned on its own last estimate"):
        adapted(theirs.GaussianDiffusion(unet, image_size=8, timesteps=20), "x")


class SinusoidalPosEmb(torch.nn.Module):
    """Of the library's name, and of no use."""


def diffusion_around(network):
    return SimpleNamespace(
        model=network, objective="pred_noise", betas=linear().betas, image_size=8, channels=1, self_condition=False
    )


@pytest.mark.parametrize("network", [lambda x, t: x, SimpleNamespace(time_mlp=torch.nn.Sequential()), None])
def test_a_diffusion_around_no_module_is_refused_in_a_sentence(network):
    with pytest.raises(UsageError, match="there is an adapter for GaussianDiffusion, around a Unet"):
        of_denoising_diffusion.diffusion(diffusion_around(network), "x")


@pytest.mark.parametrize("layers", [(), (SinusoidalPosEmb(),), (SinusoidalPosEmb(), torch.nn.GELU())])
def test_a_time_embedding_without_layers_is_left_as_it_is(layers):
    network = torch.nn.Module()
    network.time_mlp = torch.nn.Sequential(*layers)
    assert of_denoising_diffusion.diffusion(diffusion_around(network), "x").network.network is network
