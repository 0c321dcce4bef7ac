"""The families, by name, as import strings that are resolved on use."""

FAMILIES: dict[str, str] = {
    "vae": "training.families.vae:FAMILY",
    "gan": "training.families.gan:FAMILY",
    "cyclegan": "training.families.cyclegan:FAMILY",
    "diffusion": "training.families.diffusion:FAMILY",
    "reflow": "training.families.reflow:FAMILY",
}
