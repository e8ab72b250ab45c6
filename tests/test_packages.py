"""Models that nobody here wrote, trained as their libraries recommend: no check raises an alarm.

Each package is optional; models are small, randomly initialised, and nothing is downloaded.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ris_diag

pytestmark = pytest.mark.slow
Batch = dict[str, Tensor]
Optimizer = torch.optim.Optimizer


def ints(high: int, shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def adamw(lr: float = 1e-3) -> Callable[[nn.Module], Optimizer]:
    return lambda model: torch.optim.AdamW(model.parameters(), lr=lr)


def counting(split: str, seed: int, size: int) -> Batch:
    """Sequences of tokens that count on from somewhere."""
    tokens = (ints(30, (size, 1), seed) + torch.arange(12)) % 30
    return {"input_ids": tokens, "labels": tokens}


def marked(split: str, seed: int, size: int) -> Batch:
    """Sequences of tokens of two kinds, told apart by their range, with padding."""
    labels = ints(2, (size,), seed)
    tokens = ints(15, (size, 12), seed) + 15 * labels.unsqueeze(1)
    mask = (torch.arange(12) < ints(6, (size, 1), seed) + 6).long()
    return {"input_ids": tokens * mask, "attention_mask": mask, "labels": labels}


def pictures(split: str, seed: int, size: int) -> Batch:
    """Noise, brighter in one class than in the other."""
    labels = ints(2, (size,), seed)
    bright = labels.view(-1, 1, 1, 1)
    return {"pixel_values": normal((size, 3, 16, 16), seed) + bright, "labels": labels}


def own_loss(model: nn.Module, batch: Batch, progress: ris_diag.Progress) -> Tensor:
    """The loss that a model of transformers computes by itself, as its training guide has it."""
    loss: Tensor = model(**batch).loss
    return loss


def transformer(
    name: str, batch: Callable[[str, int, int], Batch], kind: str, config: str, **sizes: Any
) -> ris_diag.Case:
    library = pytest.importorskip("transformers")

    def step(training: ris_diag.Training, batch: Batch, progress: ris_diag.Progress) -> Tensor:
        loss = own_loss(training.model, batch, progress)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        training.optimizer.step()
        training.optimizer.zero_grad()
        return loss.detach()

    return ris_diag.Case(
        name=name,
        model=lambda: getattr(library, kind)(getattr(library, config)(**sizes)),
        batch=batch,
        loss=own_loss,
        optimizer=adamw(3e-3),
        step=step,
        predict=lambda model, batch: (
            model(**{key: value for key, value in batch.items() if key != "labels"}).logits
        ),
    )


def gpt2() -> ris_diag.Case:
    sizes = {"vocab_size": 30, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    return transformer(
        "gpt2", counting, "GPT2LMHeadModel", "GPT2Config", **sizes, bos_token_id=0, eos_token_id=0
    )


ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def bert() -> ris_diag.Case:
    return transformer(
        "bert", marked, "BertForSequenceClassification", "BertConfig", vocab_size=30, **ENCODER
    )


def vit() -> ris_diag.Case:
    sizes = {"image_size": 16, "patch_size": 4}
    return transformer(
        "vit", pictures, "ViTForImageClassification", "ViTConfig", **sizes, **ENCODER
    )


def llama() -> ris_diag.Case:
    sizes = {"vocab_size": 30, "num_key_value_heads": 1, "bos_token_id": 0, "eos_token_id": 0}
    return transformer("llama", counting, "LlamaForCausalLM", "LlamaConfig", **sizes, **ENCODER)


def t5() -> ris_diag.Case:
    sizes = {"vocab_size": 30, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2}
    special = {"num_heads": 2, "decoder_start_token_id": 0}
    case = transformer("t5", counting, "T5ForConditionalGeneration", "T5Config", **sizes, **special)
    return replace(case, predict=None)  # it generates, token by token


def gcn() -> ris_diag.Case:
    """Nodes of one graph with two communities, `size` of them labelled."""
    models = pytest.importorskip("torch_geometric.nn.models")

    def batch(split: str, seed: int, size: int) -> Batch:
        y = ints(2, (size,), seed)
        ends = ints(size, (2, 8 * size), seed)
        same = y[ends[0]] == y[ends[1]]
        x = normal((size, 8), seed) + y.unsqueeze(1)
        return {"x": x, "edge_index": ends[:, same], "y": y}

    return ris_diag.Case(
        name="gcn",
        model=lambda: models.GCN(8, 16, num_layers=2, out_channels=2, dropout=0.1),
        batch=batch,
        loss=lambda model, b, progress: nn.functional.cross_entropy(
            model(b["x"], b["edge_index"]), b["y"]
        ),
        optimizer=adamw(0.01),
    )


def gin() -> ris_diag.Case:
    """Whole graphs: rings and stars, in the library's own batches."""
    geometric = pytest.importorskip("torch_geometric")
    data, layers = geometric.data, geometric.nn

    class Graphs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = layers.GIN(4, 16, num_layers=2, norm="batch_norm")
            self.read = nn.Linear(16, 2)

        def forward(self, graphs: Any) -> Tensor:
            nodes = self.encode(graphs.x, graphs.edge_index)
            result: Tensor = self.read(layers.global_add_pool(nodes, graphs.batch))
            return result

    def graph(label: int, seed: int) -> Any:
        nodes = torch.arange(6)
        ends = (nodes + 1) % 6 if label else torch.zeros(6, dtype=torch.long)
        edges = geometric.utils.to_undirected(torch.stack([nodes, ends]))
        return data.Data(x=normal((6, 4), seed), edge_index=edges, y=torch.tensor([label]))

    def batch(split: str, seed: int, size: int) -> Any:
        labels = ints(2, (size,), seed).tolist()
        return data.Batch.from_data_list([graph(y, seed + n) for n, y in enumerate(labels)])

    return ris_diag.Case(
        name="gin",
        model=Graphs,
        batch=batch,
        loss=lambda model, b, progress: nn.functional.cross_entropy(model(b), b.y),
        optimizer=adamw(0.01),
    )


def unet() -> ris_diag.Case:
    """A diffusion model that learns the noise, as in the library's training example."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=100)

    def model() -> nn.Module:
        unet: nn.Module = diffusers.UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(16, 32),
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )
        return unet

    def batch(split: str, seed: int, size: int) -> Batch:
        return {
            "images": normal((size, 1, 8, 8), seed).cumsum(-1),
            "noise": normal((size, 1, 8, 8), seed + 1),
            "timesteps": ints(100, (size,), seed),
        }

    def loss(model: nn.Module, b: Batch, progress: ris_diag.Progress) -> Tensor:
        noisy = scheduler.add_noise(b["images"], b["noise"], b["timesteps"])
        predicted = model(noisy, b["timesteps"], return_dict=False)[0]
        return nn.functional.mse_loss(predicted, b["noise"])

    return ris_diag.Case(name="unet", model=model, batch=batch, loss=loss, optimizer=adamw())


def autoregressive() -> ris_diag.Case:
    library = pytest.importorskip("x_transformers")

    def model() -> nn.Module:
        decoder = library.Decoder(dim=32, depth=2, heads=2, attn_dim_head=16)
        net = library.TransformerWrapper(num_tokens=30, max_seq_len=16, attn_layers=decoder)
        wrapped: nn.Module = library.AutoregressiveWrapper(net)
        return wrapped

    return ris_diag.Case(
        name="x-transformers",
        model=model,
        batch=lambda split, seed, size: counting(split, seed, size)["input_ids"],
        loss=lambda model, tokens, progress: model(tokens),
        optimizer=adamw(),
    )


def gaussian_process() -> ris_diag.Case:
    """An exact GP: model and likelihood hold the parameters, the loss is a marginal likelihood."""
    gpytorch = pytest.importorskip("gpytorch")
    x = torch.linspace(0, 1, 16)
    y = torch.sin(6 * x)

    class Exact(gpytorch.models.ExactGP):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
            self.mean = gpytorch.means.ConstantMean()
            self.kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())

        def forward(self, points: Tensor) -> Any:
            return gpytorch.distributions.MultivariateNormal(self.mean(points), self.kernel(points))

    def main() -> None:
        model = Exact()
        model.train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        for _ in range(20):
            optimizer.zero_grad()
            loss = -mll(model(x), y)
            loss.backward()
            optimizer.step()

    return ris_diag.Case(name="gpytorch", main=main)


def transformers_trainer() -> ris_diag.Case:
    """The loop of transformers around GPT-2, with accumulation, clipping and a schedule."""
    library = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def main() -> None:
        sizes = {"vocab_size": 30, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
        tokens = counting("train", 0, 64)["input_ids"]
        with TemporaryDirectory() as folder:
            arguments = library.TrainingArguments(
                output_dir=folder,
                num_train_epochs=4,
                per_device_train_batch_size=8,
                gradient_accumulation_steps=2,
                learning_rate=3e-3,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
            )
            library.Trainer(
                model=library.GPT2LMHeadModel(library.GPT2Config(**sizes)),
                args=arguments,
                train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
            ).train()

    return ris_diag.Case(
        name="transformers-trainer", main=main, declared=ris_diag.Declared(accumulation=2)
    )


TRAINER = {
    "max_epochs": 4,
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def lightning_trainer() -> ris_diag.Case:
    """A LightningModule in the library's own loop."""
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2)
            )

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            return nn.functional.cross_entropy(self.net(x), y)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            x, y = batch
            self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)]

    def main() -> None:
        x = torch.randn(64, 4)
        pairs = torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long())
        loaders = [
            torch.utils.data.DataLoader(pairs, batch_size=8, shuffle=shuffle)
            for shuffle in (True, False)
        ]
        lightning.Trainer(**TRAINER).fit(Classifier(), *loaders)

    return ris_diag.Case(name="lightning", main=main)


def temporal_fusion() -> ris_diag.Case:
    """The Temporal Fusion Transformer in Lightning's loop, as its tutorial trains it."""
    forecasting = pytest.importorskip("pytorch_forecasting")
    lightning = pytest.importorskip("lightning")
    pandas = pytest.importorskip("pandas")

    def main() -> None:
        steps, series = 30, 4
        frame = pandas.DataFrame(
            {
                "time": [t for _ in range(series) for t in range(steps)],
                "series": [str(s) for s in range(series) for _ in range(steps)],
                "value": [float((t + s) % 7) for s in range(series) for t in range(steps)],
            }
        )
        dataset = forecasting.TimeSeriesDataSet(
            frame,
            time_idx="time",
            target="value",
            group_ids=["series"],
            max_encoder_length=8,
            max_prediction_length=2,
            static_categoricals=["series"],
            time_varying_known_reals=["time"],
            time_varying_unknown_reals=["value"],
            target_normalizer=forecasting.GroupNormalizer(groups=["series"]),
        )
        model = forecasting.TemporalFusionTransformer.from_dataset(
            dataset,
            learning_rate=0.03,
            hidden_size=8,
            attention_head_size=1,
            hidden_continuous_size=4,
            loss=forecasting.QuantileLoss(),
        )
        trainer = lightning.Trainer(**TRAINER, gradient_clip_val=0.1)
        trainer.fit(model, dataset.to_dataloader(train=True, batch_size=16, num_workers=0))

    return ris_diag.Case(name="temporal-fusion", main=main)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "make",
    [
        gpt2,
        bert,
        vit,
        llama,
        t5,
        gcn,
        gin,
        unet,
        autoregressive,
        gaussian_process,
        transformers_trainer,
        lightning_trainer,
        temporal_fusion,
    ],
    ids=lambda make: make.__name__,
)
def test_no_false_alarm(make: Callable[[], ris_diag.Case]) -> None:
    case = make()
    report = ris_diag.run(case, select="guard,data,litmus")
    alarms = [result.message() for result in report.results if result.status in ("fail", "error")]
    assert not alarms, "\n".join(alarms)
    if case.main is None:
        assert {report[check].status for check in ("L001", "L008", "L009")} == {"pass"}
    else:
        assert sum(result.status == "pass" for result in report.results) >= 8
