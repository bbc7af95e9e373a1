"""DL3DV: novel views of photographed scenes, by 3D Gaussians or by a network of many scenes, and a benchmark."""
