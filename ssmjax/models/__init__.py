"""The model families: one file each, with frozen config, presets, modules and one forward."""
