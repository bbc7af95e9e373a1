"""Rows, files, shards, caches: how records get in and out."""
