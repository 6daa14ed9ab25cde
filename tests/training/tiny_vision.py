"""The smallest runs on images, that several test files share."""

from dataclasses import replace

from headspec.training.vision_config import VisionConfig

SIZES = {
    "transformer": {"width": 16, "depth": 2, "mlp_width": 24},
    "cnn": {"width": 4, "depth": 3},
    "mlp": {"width": 8, "depth": 2},
}


def tiny_vision(model="mlp", **changes):
    """Twelve updates, measured at every third."""
    config = VisionConfig(
        model=model,
        steps=12,
        batch_size=16,
        warmup=2,
        measure_every=3,
        measured_images=40,
        validate_every=6,
        save_every=5,
        **SIZES[model],
    )
    return replace(config, **changes)
