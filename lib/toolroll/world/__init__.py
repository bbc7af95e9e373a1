"""Small pictures with known contents: scenes, charts and photos, in pairs that differ in a known way."""
