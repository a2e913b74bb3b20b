"""Networks, bags in the layout of XD-Violence, the average of weights, frames' precision, and a whole run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck_audiovideo.macil_sd import (
    AudioVisualNet,
    BagLoss,
    FeatureBags,
    FrameAP,
    PeerAveraging,
    VisualNet,
    frame_ap,
)
from limbeck_audiovideo.macil_sd.model import highest_mean, snippets_kept
from limbeck_audiovideo.macil_sd.rendered_bags import render
from limbeck_core import Peers
from limbeck_core.engine.commands import evaluate, train
from limbeck_core.errors import ConfigError, DataError, MatchError, ShapeError
from limbeck_core.schedules import Cosine, Linear, Progress

SMALL = {"visual_dim": 8, "width": 8, "heads": 2, "ffn_dim": 8}


def bag(batch: int = 3, snippets: int = 20) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "visual": torch.randn(batch, snippets, 8, generator=generator),
        "audio": torch.randn(batch, snippets, 4, generator=generator),
        "length": torch.tensor([20, 7, 0][:batch]),
    }


def test_k_and_the_bags_logit() -> None:
    assert snippets_kept(torch.tensor([0, 1, 15, 16, 200])).tolist() == [1, 1, 1, 2, 13]
    logits = torch.arange(20.0).repeat(2, 1)
    torch.testing.assert_close(highest_mean(logits, torch.tensor([20, 0])), torch.tensor([18.5, 0.0]))


@pytest.mark.parametrize("net", [AudioVisualNet(audio_dim=4, **SMALL), VisualNet(**SMALL)], ids=["av", "v"])
def test_padding_changes_nothing(net: Any) -> None:
    net.eval()
    short, long = bag(), bag()
    for name in ("visual", "audio"):
        long[name][1, 7:] = 50.0
        long[name][2, 1:] = 50.0
    found, expected = net(long), net(short)
    torch.testing.assert_close(found["bag_logits"], expected["bag_logits"])
    torch.testing.assert_close(found["frame_logits"][1, :7], expected["frame_logits"][1, :7])


def test_one_layer_and_one_classifier_serve_both_modalities() -> None:
    net = AudioVisualNet(audio_dim=4, **SMALL).eval()
    found = net(bag())
    torch.testing.assert_close(found["frame_logits"], found["audio_logits"] + found["visual_logits"])
    torch.testing.assert_close(net.fc(found["audio_features"]).squeeze(-1), found["audio_logits"])


def test_sizes_of_the_card() -> None:
    av, v = (sum(p.numel() for p in net().parameters()) for net in (AudioVisualNet, VisualNet))
    assert (av, v) == (247425, 230913)


def test_a_single_bag_keeps_its_axis_and_an_empty_batch_is_zero() -> None:
    net = AudioVisualNet(audio_dim=4, **SMALL)
    output = net(bag(1))
    assert output["bag_logits"].shape == (1,)
    loss = BagLoss()(output, torch.tensor([1]))
    torch.testing.assert_close(loss, torch.nn.functional.softplus(-output["bag_logits"][0]))
    empty = BagLoss()({"bag_logits": torch.zeros(0, requires_grad=True)}, torch.zeros(0))
    empty.backward()
    assert float(empty.detach()) == 0


def test_bags_that_do_not_fit_are_told() -> None:
    net = AudioVisualNet(audio_dim=4, **SMALL)
    with pytest.raises(MatchError, match="a bag needs 'audio'"):
        net({name: value for name, value in bag().items() if name != "audio"})
    with pytest.raises(ShapeError, match=r"audio of a bag must have shape \(B, T, 4\)"):
        net({**bag(), "audio": bag()["audio"][:, :-1]})
    with pytest.raises(ShapeError, match=r"length must be \(3,\) numbers up to 20"):
        net({**bag(), "length": torch.tensor([21, 1, 1])})
    with pytest.raises(ValueError, match="heads divide width"):
        VisualNet(width=9)


def test_schedules_are_the_papers() -> None:
    momentum = Cosine(0.91, 1.0, until=50, by="epoch")
    weight = Linear(0.0, 1.5, until=15, by="epoch")
    for epoch in (0, 7, 25, 49, 50, 60):
        at = Progress(step=0, epoch=epoch)
        expected = 1 + 0.5 * (0.91 - 1) * (1 + math.cos(math.pi * min(epoch, 50) / 50))
        assert momentum(at) == pytest.approx(expected)
        assert weight(at) == pytest.approx(min(1.5, 0.1 * epoch))


def test_averaging_moves_shared_names_alone() -> None:
    student = Peers(av=AudioVisualNet(audio_dim=4, **SMALL), v=VisualNet(**SMALL))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    PeerAveraging(momentum=0.75).average(student, Progress(step=0, epoch=0))
    after = student.state_dict()
    for name, value in before.items():
        peer, _, rest = name.partition(".")
        moves = peer == "av" and not rest.startswith("fc_a")
        expected = 0.75 * value + 0.25 * before[f"v.{rest}"] if moves else value
        torch.testing.assert_close(after[name], expected)

    class Stub:
        model = Peers(av=torch.nn.Linear(2, 2), v=torch.nn.Linear(3, 3, bias=False))

    with pytest.raises(ConfigError, match="the peers 'av' and 'v' share no parameter"):
        PeerAveraging().before_train(Stub())


def write_bags(folder: Path) -> None:
    """Two videos of two crops, named as somebody else's lists name them."""
    for name in ("i3d-features/RGB", "vggish-features"):
        (folder / name).mkdir(parents=True)
    lines: dict[str, list[str]] = {"rgb": [], "audio": []}
    for number, (label, length) in enumerate((("A", 6), ("B1", 3))):
        for crop in range(2):
            values = np.full((length, 8), 1.0 + crop, np.float32)
            values[-1] = 0
            np.save(folder / "i3d-features/RGB" / f"v{number}_label_{label}__{crop}.npy", values)
            lines["rgb"].append(f"/elsewhere/v{number}_label_{label}__{crop}.npy")
        np.save(
            folder / "vggish-features" / f"v{number}_label_{label}__vggish.npy", np.ones((length + 1, 4), np.float32)
        )
        lines["audio"].append(f"/elsewhere/v{number}_label_{label}__vggish.npy")
    for name, text in lines.items():
        (folder / f"{name}.list").write_text("\n".join(text) + "\n")


def test_layout_of_xd_violence(tmp_path: Path) -> None:
    write_bags(tmp_path)
    data = FeatureBags(root=tmp_path, crops=2, snippets=4)
    assert [data[i]["targets"] for i in range(4)] == [0, 0, 1, 1]
    assert [data[i]["videos"] for i in range(4)] == [0, 0, 1, 1]
    long, short = data[1]["inputs"], data[2]["inputs"]
    assert long["visual"].shape == (4, 8)
    assert (long["length"], short["length"]) == (3, 2)  # of four snippets the last is zero; of three the last
    assert short["visual"][2:].abs().sum() == 0
    assert short["audio"][3:].abs().sum() == 0  # cut to the video's three, then padded
    whole = FeatureBags(root=tmp_path, crops=2, snippets=None)
    assert whole[0]["inputs"]["visual"].shape == (6, 8)
    with pytest.raises(DataError, match="where each audio file belongs to crops=5 visual ones"):
        FeatureBags(root=tmp_path)


def test_missing_and_damaged_features_are_told(tmp_path: Path) -> None:
    write_bags(tmp_path)
    np.save(tmp_path / "i3d-features/RGB" / "v0_label_A__0.npy", np.full((3, 8), np.nan, np.float32))
    with pytest.raises(DataError, match="must hold finite features"):
        FeatureBags(root=tmp_path, crops=2)[0]
    for number in range(2):
        (tmp_path / "i3d-features/RGB" / f"v0_label_A__{number}.npy").unlink()
    with pytest.raises(DataError, match=r"2 feature files are missing: .*v0_label_A__0.npy, .*v0_label_A__1.npy"):
        FeatureBags(root=tmp_path, crops=2)
    with pytest.raises(DataError, match="there is no list"):
        FeatureBags("other.list", root=tmp_path)


def test_precision_of_frames_averages_crops_and_repeats_snippets(tmp_path: Path) -> None:
    truth = np.repeat([0, 1, 1, 0, 0], 16)
    np.save(tmp_path / "gt.npy", truth)
    metric = FrameAP()
    logits = torch.tensor([[-1.0, 2.0], [-3.0, 0.5], [1.0, 2.0], [0.5, -1.0]])
    third = torch.tensor([[-2.0], [-0.5]])
    where = str(tmp_path / "gt.npy")
    for video, rows in ((0, logits[:2]), (1, logits[2:]), (2, third)):
        for row in rows:
            metric.process({"videos": [video], "truth": [where]}, [row])
    probabilities = torch.sigmoid(torch.cat([logits[:2].T, logits[2:].T, third.T])).mean(1)
    expected = frame_ap(probabilities.repeat_interleave(16).numpy(), truth)
    assert metric.compute_metrics(metric.results) == {"ap": pytest.approx(expected)}
    assert frame_ap(truth, truth) == pytest.approx(100)
    np.save(tmp_path / "gt.npy", truth[:-1])
    with pytest.raises(DataError, match=r"for each of 80 frames \(16 a snippet\), got \(79,\)"):
        metric.compute_metrics(metric.results)
    with pytest.raises(DataError, match="give FeatureBags the file"):
        FrameAP().process({"videos": [0]}, [logits[0]])


@pytest.mark.filterwarnings("ignore:.*")
def test_a_run_from_its_config_learns_the_drawn_bags(tmp_path: Path) -> None:
    data = render(tmp_path / "bags", train=40, test=10, seed=1)
    overrides = {
        "+log_level": "ERROR",
        "train_cfg.max_epochs": 6,
        "train_cfg.val_interval": 6,
        "train_dataloader.batch_size": 20,
    }
    done = train("audiovideo/macil_sd/rendered", work_dir=tmp_path / "run", data_root=data, seed=0, overrides=overrides)
    found = done.message_hub.log_scalars["val/ap"].data[0][-1]
    prevalence = 100 * float(np.load(data / "gt.npy").mean())
    assert found > 1.5 * prevalence
    again = evaluate("audiovideo/macil_sd/rendered", tmp_path / "run" / "student.pth", data_root=data)
    assert again["ap"] == pytest.approx(float(found))
