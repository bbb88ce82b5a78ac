"""Writes tests/data/torch/*.pth, small files really made by torch.save; needs torch.

    python tests/data/make_torch.py

As Meta and others save: views of one storage, bfloat16, parameters, a nested state dict, a
transposed view, and what is no weight.
"""

from pathlib import Path

import torch

FOLDER = Path(__file__).with_name("torch")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    values = torch.arange(60, dtype=torch.float32) / 8 - 3
    shared = values.half()
    torch.save(
        {
            "layers.0.wq.weight": shared[:20].view(4, 5),
            "layers.0.wk.weight": shared[20:60].view(4, 10),
            "layers.0.turned.weight": shared[:20].view(4, 5).t(),
            "layers.0.columns.weight": shared.view(6, 10)[:, 3:5],
            "norm.weight": shared[7:16],
        },
        FOLDER / "shared_f16.pth",
    )
    torch.save(
        {"w": values.bfloat16().view(6, 10), "b": values[:4].bfloat16()}, FOLDER / "bf16.pth"
    )
    module = torch.nn.Linear(5, 3)
    with torch.no_grad():
        module.weight.copy_(values[:15].view(3, 5))
        module.bias.copy_(values[:3])
    module.register_buffer("positions", torch.arange(7))
    torch.save({"model": module.state_dict()}, FOLDER / "nested_f32.pth")
    torch.save({"weight": module.weight, "step": 7}, FOLDER / "parameter.bin")


if __name__ == "__main__":
    main()
