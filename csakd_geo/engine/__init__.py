"""From a scene and a fit to pixels: scene, kernel, graph and store."""
