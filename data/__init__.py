"""Turns a corpus into records: documents, words, pairs, shards."""
