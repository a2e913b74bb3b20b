"""The stages on small pictures, each a run of the installed config at a small size; and the weights they hand over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from limbeck_core import Distiller, Match
from limbeck_core.engine.commands import predict, train
from limbeck_core.errors import CheckpointError, ConfigError, DataError, MatchError
from limbeck_core.losses import HintLoss
from limbeck_medical import esp_medsam
from limbeck_medical.esp_medsam import (
    ESPMedSAM,
    MultiModalDataset,
    SAMImageEncoder,
    SelfPromptingCall,
    TinyViTEncoder,
    square_pictures,
    with_weights,
)

SIZE = 64
NAMES = ("ultrasound", "x-ray")
TINY: dict[str, Any] = {
    "type": "limbeck_medical.esp_medsam.TinyViTEncoder",
    "image_size": SIZE,
    "dims": (8, 8, 8, 16),
    "depths": (1, 1, 1, 1),
    "heads": (1, 1, 1),
    "embed_dim": 16,
}
SAM: dict[str, Any] = {
    "type": "limbeck_medical.esp_medsam.SAMImageEncoder",
    "image_size": SIZE,
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "global_blocks": (1,),
    "window": 3,
    "embed_dim": 16,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two modalities, bright blobs on dark and dark ones on bright, twelve pictures each; and unlabelled ones."""
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for name, grey in zip(NAMES, (True, False), strict=True):
        for folder in ("images", "masks"):
            (root / name / folder).mkdir(parents=True)
        for number in range(12):
            centre = generator.uniform(20, 60, 2)
            rows, columns = np.mgrid[:80, :72]
            inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 15**2
            values = np.where(inside == grey, 200, 50) + generator.normal(0, 10, inside.shape)
            picture = np.clip(values, 0, 255).astype(np.uint8)
            image = picture if grey else np.stack([picture] * 3, -1)
            Image.fromarray(image).save(root / name / "images" / f"{number}.png")
            Image.fromarray(inside.astype(np.uint8) * 255).save(root / name / "masks" / f"{number}.png")
    (root / "any" / "images").mkdir(parents=True)
    for number in range(4):
        noise = generator.integers(0, 255, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "any" / "images" / f"{number}.png")
    return root


def whole(encoder: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    small = {"modalities": 2, "heads": 2, "hidden": 16}
    return {"type": "limbeck_medical.esp_medsam.ESPMedSAM", "image_encoder": {**encoder, **options}, **small}


def shaken(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return model


def run(stage: str, root: Path, folder: Path, overrides: Mapping[str, Any]) -> dict[str, Tensor]:
    common: dict[str, Any] = {
        "train_cfg.max_epochs": 1,
        "train_dataloader.batch_size": 4,
        "train_dataloader.num_workers": 0,
        "train_dataloader.dataset.preprocess.size": SIZE,
        "+log_level": "ERROR",
    }
    for loader in ("train", "val", "test") if stage != "aggregator" else ():
        common[f"{loader}_dataloader.dataset.preprocess.size"] = SIZE
        common[f"{loader}_dataloader.dataset.modalities"] = NAMES
        common[f"{loader}_dataloader.num_workers"] = 0
    train(f"medical/esp_medsam/{stage}", work_dir=folder, seed=0, data_root=root, overrides={**common, **overrides})
    state: dict[str, Tensor] = torch.load(folder / "student.pth", weights_only=True)["state_dict"]
    return state


def test_every_stage_runs_and_hands_over(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAM's file, stage A, stage B, stage C for each modality, stage D: what trains, what stays, what is taken over."""
    monkeypatch.chdir(tmp_path)
    sam = shaken(ESPMedSAM(SAMImageEncoder(**{k: v for k, v in SAM.items() if k != "type"}), heads=2, hidden=16))
    # a file of SAM has neither patches nor queries, and parts that this model has not
    official = {n: v for n, v in sam.state_dict().items() if not n.startswith(("patch_prompter.", "mask_query."))}
    torch.save({**official, "mask_decoder.iou_token.weight": torch.zeros(1, 16)}, tmp_path / "sam.pth")

    start = {"model.student": TINY, "model.teacher.model": SAM, "model.teacher.parts": {"rest": "sam.pth"}}
    first = run("aggregator", pictures / "any", tmp_path / "a", start)
    assert not any("med_" in name for name in first)

    medical = {
        "model.student.model": whole(SAM, controllers=2, controllers_only=True),
        "model.student.parts": {"rest": "sam.pth"},
    }
    second = run("medical_teacher", pictures, tmp_path / "b", medical)
    changed = {name for name, value in official.items() if not torch.equal(value, second[name])}
    assert changed
    assert all(name.startswith("mask_decoder.") for name in changed)
    assert all(float(second[f"image_encoder.blocks.0.med_adapters.{m}.3.weight"].abs().max()) > 0 for m in (0, 1))

    controllers: list[str] = []
    for number, name in enumerate(NAMES):
        one = {
            "model.student.model": whole(TINY, controllers=1, controllers_only=True),
            "model.student.parts": {"rest": "b/student.pth", "image_encoder": "a/student.pth"},
            "model.teacher.model": whole(SAM, controllers=2),
            "model.teacher.parts": {"rest": "b/student.pth"},
            **{f"{loader}_dataloader.dataset.only": (name,) for loader in ("train", "val", "test")},
            "train_cfg.val_interval": 1,
        }
        third = run("controller", pictures, tmp_path / f"c{number}", one)
        for key, value in third.items():
            origin = first.get(key.removeprefix("image_encoder.")) if "image_encoder" in key else second[key]
            assert (origin is None) == ("med_" in key)
            assert origin is None or torch.equal(value, origin), key
        controllers.append(f"c{number}/student.pth")

    last = {
        "model.student.model": whole(TINY, controllers=2),
        "model.student.parts": {"rest": "b/student.pth", "image_encoder": "a/student.pth"},
        "model.student.controllers": controllers,
    }
    fourth = run("assembled", pictures, tmp_path / "d", last)
    for number, path in enumerate(controllers):
        own = torch.load(path, weights_only=True)["state_dict"]
        for name, value in own.items():
            if "med_mlps" in name:
                assert torch.equal(fourth[name.replace("med_mlps.0.", f"med_mlps.{number}.")], value)
            elif ".attn.med_" in name:
                assert torch.equal(fourth[name][number], value[0])
    assert not torch.equal(fourth["mask_query.weight"], second["mask_query.weight"])

    alone = run("plain", pictures, tmp_path / "e", {"model.student": whole(TINY, controllers=2)})
    assert alone.keys() == fourth.keys()
    overrides = {
        "model.student": whole(TINY, controllers=2),
        "model.call.modality": 1,
        "predictor.preprocess.size": SIZE,
        "+predictor.out": str(tmp_path / "out"),
    }
    picture = pictures / NAMES[1] / "images" / "3.png"
    (found,) = predict("medical/esp_medsam/plain", tmp_path / "d" / "student.pth", [str(picture)], overrides=overrides)
    labels = np.asarray(Image.open(found["labels"]))
    assert labels.shape == (80, 72)  # the picture's own grid
    assert found["mm2"]["1"] == float((labels == 1).sum())


def test_the_example_of_the_readme() -> None:
    text = (Path(esp_medsam.__file__).parent / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102  our own text


def test_the_loss_of_a_controller_falls(pictures: Path) -> None:
    """The embedding of a teacher that differs by a controller alone is learned by training the controller alone."""
    torch.manual_seed(0)
    options = {name: value for name, value in TINY.items() if name != "type"}
    teacher = TinyViTEncoder(**options, controllers=1)
    student = TinyViTEncoder(**options, controllers=1, controllers_only=True)
    student.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        for name, value in teacher.named_parameters():
            if "med_" in name:
                value.add_(0.3 * torch.randn_like(value))
    match = Match(HintLoss(), student="", teacher="")
    distiller = Distiller(student, teacher, {"embedding": match}, call=SelfPromptingCall(modality=0))
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=5e-3)
    data = MultiModalDataset(
        pictures, modalities=NAMES, only=NAMES[:1], preprocess=square_pictures(SIZE), part="all", cache="memory"
    )
    batch = {"inputs": torch.stack([data[i]["inputs"] for i in range(8)])}
    found = []
    for _ in range(40):
        loss = distiller(batch)["loss/embedding"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert found[-1] < 0.7 * found[0]


class TestData:
    def test_modality_and_ids(self, pictures: Path) -> None:
        options: dict[str, Any] = {"modalities": NAMES, "preprocess": square_pictures(SIZE), "part": "all"}
        both = MultiModalDataset(pictures, **options)
        second = MultiModalDataset(pictures, only=NAMES[1:], **options)
        samples = [both[i] for i in range(len(both))]
        assert [sample["modality"] for sample in samples] == [0] * 12 + [1] * 12
        assert len({sample["ids"] for sample in samples}) == 24
        assert [second[i]["ids"] for i in range(12)] == [sample["ids"] for sample in samples[12:]]
        assert all(sample["inputs"].shape == (3, SIZE, SIZE) for sample in samples)  # grey and coloured
        assert all(sample["targets"].unique().tolist() == [0, 1] for sample in samples)

    def test_normalisations(self, pictures: Path) -> None:
        raw = np.asarray(Image.open(pictures / "x-ray" / "images" / "0.png")).mean((0, 1))
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        for normalization, by in (("imagenet", std), ("released", mean)):
            chain = square_pictures(SIZE, normalization=normalization)  # type: ignore[arg-type]
            data = MultiModalDataset(pictures, modalities=NAMES, only=("x-ray",), preprocess=chain, part="all")
            found = data[0]["inputs"].mean((1, 2)).numpy()
            np.testing.assert_allclose(found, (raw - mean) / by, atol=0.02)

    def test_refusals(self, pictures: Path) -> None:
        with pytest.raises(ConfigError, match="only names the modality 'xray': did you mean"):
            MultiModalDataset(pictures, modalities=NAMES, only=("xray",))
        with pytest.raises(ConfigError, match="only names no modality"):
            MultiModalDataset(pictures, modalities=NAMES, only=())
        with pytest.raises(DataError, match="dermoscopy"):
            MultiModalDataset(pictures)
        with pytest.raises(ValueError, match="normalization must be one of imagenet, released"):
            square_pictures(normalization="none")  # type: ignore[arg-type]


class TestCall:
    def test_scores_of_two_classes(self) -> None:
        model = ESPMedSAM(TinyViTEncoder(**{k: v for k, v in TINY.items() if k != "type"}), heads=2, hidden=16).eval()
        batch = {"inputs": torch.randn(2, 3, SIZE, SIZE), "modality": torch.tensor([0, 1])}
        with torch.no_grad():
            masks = model(batch["inputs"], batch["modality"])["masks"]
            found = SelfPromptingCall().predict(model, batch, "inputs")
        assert torch.equal(found.argmax(1, keepdim=True), (masks > 0).long())

    def test_an_unknown_modality(self) -> None:
        with pytest.raises(MatchError, match="the batch does not name its modality"):
            SelfPromptingCall().capture(torch.nn.Identity(), {"inputs": torch.zeros(1)}, "inputs")
        with pytest.raises(MatchError, match="needs 'inputs' of the batch"):
            SelfPromptingCall().capture(torch.nn.Identity(), {"input": torch.zeros(1), "modality": 0}, "inputs")


class TestWeights:
    def made(self, controllers: int = 1) -> ESPMedSAM:
        encoder = TinyViTEncoder(**{k: v for k, v in TINY.items() if k != "type"}, controllers=controllers)
        model = ESPMedSAM(encoder, modalities=2, heads=2, hidden=16)
        return shaken(model)  # type: ignore[return-value]

    def test_the_names_of_the_released_code(self, tmp_path: Path) -> None:
        model = self.made()
        released = {}
        for name, value in model.state_dict().items():
            theirs_name = name
            for ours, theirs in {
                "image_encoder.": "SemiTViT.",
                "patch_prompter.": "",
                "med_tokens": "deep_QKV_embeddings_med",
                "med_biases": "med_attention_biases",
                "med_mlps.0.": "med_dah.",
            }.items():
                theirs_name = theirs_name.replace(ours, theirs)
            released[theirs_name] = value.transpose(0, 1).clone() if name.endswith("med_tokens") else value
        torch.save(released, tmp_path / "released.pth")
        loaded = with_weights(whole(TINY, controllers=1), {"rest": tmp_path / "released.pth"})
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())

    def test_refusals(self, tmp_path: Path) -> None:
        torch.save(self.made(controllers=2).state_dict(), tmp_path / "two.pth")
        torch.save(self.made().image_encoder.state_dict(), tmp_path / "encoder.pth")
        one = whole(TINY, controllers=1)
        with pytest.raises(CheckpointError, match="have other shapes than ESPMedSAM's"):
            with_weights(one, {"rest": tmp_path / "two.pth"})
        with pytest.raises(CheckpointError, match="of the weights of ESPMedSAM not, the first is"):
            with_weights(one, {"image_encoder": tmp_path / "encoder.pth"})
        with pytest.raises(ConfigError, match="parts names 'encoder': did you mean"):
            with_weights(one, {"encoder": tmp_path / "encoder.pth"})
        with pytest.raises(CheckpointError, match="must hold one modality controller"):
            with_weights(one, {"rest": tmp_path / "two.pth"}, controllers=[tmp_path / "two.pth"])
        two = whole(TINY, controllers=2)
        with pytest.raises(ConfigError, match="the model has no controller 2"):
            with_weights(two, {"rest": tmp_path / "two.pth"}, controllers=[tmp_path / "encoder.pth"] * 3)
        with pytest.raises(CheckpointError, match="there is no checkpoint file"):
            with_weights(one, {"rest": tmp_path / "none.pth"})
